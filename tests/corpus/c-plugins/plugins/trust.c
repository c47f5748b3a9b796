/* Whether the system's certificate authorities vouch for a certificate, given as the path of a PEM file. */
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#include "textmill.h"

int mill_run(const struct mill_request *request, struct mill_reply *reply)
{
    FILE *file = fopen(request->text, "r");
    X509 *certificate = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;
    if (file)
        fclose(file);
    if (!certificate) {
        reply->text = strdup("no certificate there\n");
        return 404;
    }
    X509_STORE *store = X509_STORE_new();
    X509_STORE_set_default_paths(store);
    X509_STORE_CTX *context = X509_STORE_CTX_new();
    X509_STORE_CTX_init(context, store, certificate, NULL);
    int trusted = X509_verify_cert(context) == 1;
    const char *reason = X509_verify_cert_error_string(X509_STORE_CTX_get_error(context));
    if (asprintf(&reply->text, "trusted=%s reason=%s\n", trusted ? "yes" : "no", reason) < 0)
        reply->text = NULL;
    X509_STORE_CTX_free(context);
    X509_STORE_free(store);
    X509_free(certificate);
    return 200;
}
