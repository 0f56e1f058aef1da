/* rpc_services: the services that a table of methods makes. Pure; any thread. */
#pragma once

#include "common/rpc/server.h"

/* "package.Service" of "/package.Service/Method"; borrowed. */
static inline struct sv rpc_services_of(const struct rpc_method *method)
{
    struct sv path = sv_from_at(sv_from(method->path), 1);

    return sv_cut(&path, '/');
}

static inline bool rpc_services_has(const struct rpc_method *methods, size_t n, struct sv name)
{
    for (size_t i = 0; i < n; i++) {
        if (sv_eq(name, rpc_services_of(&methods[i]))) {
            return true;
        }
    }
    return false;
}
