/* A client's certificate: any bytes as DER, judged and read. What we did not sign is never trusted,
 * and what is sent to authorize keeps its bounds. */
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "common/authz_block.h"
#include "common/crypto/keypair.h"
#include "common/crypto/ocsp.h"
#include "common/mem.h"
#include "common/policy/cert.h"
#include "proxy/trust.h"
#include "test/fuzz/http_must.h"
#include "test/support/pki.h"

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct proxy_trust *trust;
static struct keypair *pair;

static void prepare(void)
{
    struct config_san names[] = { { CONFIG_SAN_DNS, SV("(a+)+b|.*[.]example[.]com") },
                                  { CONFIG_SAN_EMAIL, SV(".*@example[.]com") },
                                  { CONFIG_SAN_IP, SV("10[.].*") },
                                  { CONFIG_SAN_URI, SV("spiffe://.*") },
                                  { CONFIG_SAN_UPN, SV(".*") } };
    struct config_mtls mtls = { .names = names, .n_names = ARRAY_LEN(names) };
    struct pki_pair ca = pki_pair_new(PKI_P256, "ca");

    must(proxy_trust_new(&mtls, sv_from(ca.cert), &trust, NULL) == ERR_OK);
    must(keypair_of_pem(sv_from(ca.cert), sv_from(ca.key), &pair, NULL) == ERR_OK);
    pki_pair_deinit(&ca);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned char *p = data;
    struct policy_cert_facts *facts = NULL;
    struct proxy_trust_verdict verdict = { .trusted = true };
    struct ocsp_times times = { .from_s = 0 };
    X509 *leaf = NULL;

    if (trust == NULL) {
        prepare();
    }
    leaf = d2i_X509(NULL, &p, (long)size);
    if (leaf != NULL) {
        proxy_trust_judge(trust, leaf, NULL, &verdict);
        must(!verdict.trusted && verdict.why != NULL);
        X509_free(leaf);
    }
    if (policy_cert_of_der(sv_of(data, size), &facts) == ERR_OK) {
        must(leaf != NULL && policy_cert_get(facts)->san_dns_count <= POLICY_CERT_SANS_MAX);
        policy_cert_free(&facts);
    }
    must(ocsp_read(sv_of(data, size), pair, &times, NULL) != ERR_OK);
    return 0;
}
