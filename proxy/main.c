/* postern-proxy: see README.md. */
#include "proxy/app.h"

int main(int argc, char **argv)
{
    return service_main(argc, argv, &proxy_service);
}
