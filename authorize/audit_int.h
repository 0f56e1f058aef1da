/* Shared by audit.c and audit_fields.c: parts of the line. */
#pragma once

#include "authorize/audit.h"

void authz_audit_add_ip(struct buf *out, const ProtobufCBinaryData *ip);
void authz_audit_add_certificate(struct buf *out, const Postern__ClientCertificate *cert);
void authz_audit_add_fields(struct buf *out, const Postern__CheckRequest *req,
                            const struct authz_outcome *outcome,
                            const struct config_log_fields *fields);
