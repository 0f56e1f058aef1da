#include "common/crypto/ocsp.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509_vfy.h>

/* The issuer's certificates are what we trust here; times are looked at when a response is used. */
static bool signature_is_fine(OCSP_BASICRESP *basic, STACK_OF(X509) * chain)
{
    X509_STORE *store = X509_STORE_new();
    bool fine = false;
    int i = 0;

    CHECK(store != NULL);
    for (i = 0; i < sk_X509_num(chain); i++) {
        CHECK(X509_STORE_add_cert(store, sk_X509_value(chain, i)) == 1);
    }
    CHECK(X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN | X509_V_FLAG_NO_CHECK_TIME) == 1);
    fine = OCSP_basic_verify(basic, chain, store, 0) == 1;
    X509_STORE_free(store);
    return fine;
}

/* The answer about the leaf, whatever digest its id was made with: servers use SHA-1, some SHA-256. */
static OCSP_SINGLERESP *answer_about(OCSP_BASICRESP *basic, const X509 *leaf, const X509 *issuer)
{
    int i = 0;

    for (i = 0; i < OCSP_resp_count(basic); i++) {
        OCSP_SINGLERESP *one = OCSP_resp_get0(basic, i);
        ASN1_OBJECT *digest = NULL;
        const EVP_MD *md = NULL;
        OCSP_CERTID *id = NULL;
        bool same = false;

        (void)OCSP_id_get0_info(NULL, &digest, NULL, NULL,
                                base_unconst(OCSP_SINGLERESP_get0_id(one)));
        md = digest == NULL ? NULL : EVP_get_digestbyobj(digest);
        id = md == NULL ? NULL : OCSP_cert_to_id(md, leaf, issuer);
        same = id != NULL && OCSP_id_cmp(id, OCSP_SINGLERESP_get0_id(one)) == 0;
        OCSP_CERTID_free(id);
        if (same) {
            return one;
        }
    }
    return NULL;
}

static enum err read_basic(OCSP_BASICRESP *basic, const struct keypair *pair,
                           struct ocsp_times *times_out, struct diag *d)
{
    STACK_OF(X509) *chain = keypair_chain(pair);
    OCSP_SINGLERESP *one = NULL;
    ASN1_GENERALIZEDTIME *from = NULL;
    ASN1_GENERALIZEDTIME *ends = NULL;
    int status = V_OCSP_CERTSTATUS_UNKNOWN;

    if (sk_X509_num(chain) == 0) {
        diag_set(d, "the certificate's file must hold its issuer's certificate too: without it "
                    "nobody can say who signed the response");
        return ERR_INVALID;
    }
    if (!signature_is_fine(basic, chain)) {
        diag_set(d, "the response is not signed by the certificate's issuer");
        return ERR_INVALID;
    }
    one = answer_about(basic, keypair_leaf(pair), sk_X509_value(chain, 0));
    if (one == NULL) {
        diag_set(d, "the response is about another certificate");
        return ERR_INVALID;
    }
    status = OCSP_single_get0_status(one, NULL, NULL, &from, &ends);
    times_out->from_s = keypair_time_s(from);
    times_out->ends_s = keypair_time_s(ends);
    if (times_out->from_s == 0 || times_out->ends_s == 0) {
        diag_set(d, "the response does not say how long it is good");
        return ERR_INVALID;
    }
    if (status != V_OCSP_CERTSTATUS_GOOD) {
        diag_set(d, "the response says that the certificate is %s",
                 status == V_OCSP_CERTSTATUS_REVOKED ? "revoked" : "unknown");
        return ERR_DENIED;
    }
    return ERR_OK;
}

enum err ocsp_read(struct sv der, const struct keypair *pair, struct ocsp_times *times_out,
                   struct diag *d)
{
    const unsigned char *p = (const unsigned char *)der.p;
    OCSP_RESPONSE *response = NULL;
    OCSP_BASICRESP *basic = NULL;
    enum err err = ERR_INVALID;

    if (der.n != 0 && der.n <= OCSP_FILE_MAX) {
        response = d2i_OCSP_RESPONSE(NULL, &p, (long)der.n);
    }
    if (response == NULL || p != (const unsigned char *)der.p + der.n) {
        diag_set(d, "it is no OCSP response in DER, as `openssl ocsp -respout` writes it");
    } else if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
        diag_set(d, "it holds the server's error \"%s\", not an answer",
                 OCSP_response_status_str(OCSP_response_status(response)));
    } else {
        basic = OCSP_response_get1_basic(response);
        if (basic == NULL) {
            diag_set(d, "its kind of response is not known");
        } else {
            err = read_basic(basic, pair, times_out, d);
        }
    }
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return err;
}
