// libssl and libcrypto: the macros and typed stacks the Swift importer cannot see.
//
// Header only: each function below wraps one macro, gives a name to one typed stack operation, or
// writes down one parameter list. No logic lives here.
#ifndef CULVERT_COPENSSL_H
#define CULVERT_COPENSSL_H

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

// Contexts

static const uint64_t culvert_SSL_OP_NO_COMPRESSION = SSL_OP_NO_COMPRESSION;
static const uint64_t culvert_SSL_OP_NO_RENEGOTIATION = SSL_OP_NO_RENEGOTIATION;
static const uint64_t culvert_SSL_OP_NO_TICKET = SSL_OP_NO_TICKET;
static const uint64_t culvert_SSL_OP_SERVER_PREFERENCE = SSL_OP_CIPHER_SERVER_PREFERENCE;

static inline int culvert_SSL_CTX_set_protocol_versions(SSL_CTX *context, int low, int high) {
  return SSL_CTX_set_min_proto_version(context, low) && SSL_CTX_set_max_proto_version(context, high);
}

static inline long culvert_SSL_CTX_set_mode(SSL_CTX *context, long mode) {
  return SSL_CTX_set_mode(context, mode);
}

static inline long culvert_SSL_CTX_set_session_cache_mode(SSL_CTX *context, long mode) {
  return SSL_CTX_set_session_cache_mode(context, mode);
}

static inline int culvert_SSL_CTX_set1_groups_list(SSL_CTX *context, const char *list) {
  return (int)SSL_CTX_set1_groups_list(context, (char *)list);
}

static inline int culvert_SSL_CTX_add1_chain_cert(SSL_CTX *context, X509 *certificate) {
  return (int)SSL_CTX_add1_chain_cert(context, certificate);
}

static inline void culvert_SSL_CTX_set_max_cert_list(SSL_CTX *context, long bytes) {
  SSL_CTX_set_max_cert_list(context, bytes);
}

static inline void culvert_SSL_CTX_set_read_ahead(SSL_CTX *context, int on) {
  SSL_CTX_set_read_ahead(context, on);
}

// Connections

static inline long culvert_SSL_set_tlsext_host_name(SSL *ssl, const char *name) {
  return SSL_set_tlsext_host_name(ssl, (char *)name);
}

// Memory BIOs

static inline long culvert_BIO_get_mem_data(BIO *bio, char **bytes) {
  return BIO_get_mem_data(bio, bytes);
}

// Typed stacks

static inline STACK_OF(X509) * culvert_X509_stack_new(void) { return sk_X509_new_null(); }

static inline int culvert_X509_stack_count(const STACK_OF(X509) * stack) {
  return sk_X509_num(stack);
}

static inline int culvert_X509_stack_push(STACK_OF(X509) * stack, X509 *certificate) {
  return sk_X509_push(stack, certificate);
}

/// Frees the stack, not the certificates on it.
static inline void culvert_X509_stack_free(STACK_OF(X509) * stack) { sk_X509_free(stack); }

/// The certificate at an index; it stays the stack's.
static inline X509 *culvert_X509_stack_value(const STACK_OF(X509) * stack, int index) {
  return sk_X509_value(stack, index);
}

static inline int culvert_X509_STORE_count(X509_STORE *store) {
  return sk_X509_OBJECT_num(X509_STORE_get0_objects(store));
}

static inline int culvert_names_count(const GENERAL_NAMES *names) {
  return sk_GENERAL_NAME_num(names);
}

/// The text of one name if it is a URI, else NULL.
static inline const ASN1_IA5STRING *culvert_names_uri(const GENERAL_NAMES *names, int index) {
  const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, index);
  return name->type == GEN_URI ? name->d.uniformResourceIdentifier : NULL;
}

// Making certificates

static inline EVP_PKEY *culvert_EVP_EC_gen(const char *curve) { return EVP_EC_gen(curve); }

static inline EVP_PKEY *culvert_EVP_RSA_gen(unsigned bits) { return EVP_RSA_gen(bits); }

static inline void culvert_X509V3_set_ctx_nodb(X509V3_CTX *context) {
  X509V3_set_ctx_nodb(context);
}

// Record protection

static inline int culvert_AEAD_get_tag(EVP_CIPHER_CTX *context, void *tag, int bytes) {
  return EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, bytes, tag);
}

static inline int culvert_AEAD_set_tag(EVP_CIPHER_CTX *context, void *tag, int bytes) {
  return EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, bytes, tag);
}

/// HKDF-Expand-Label (RFC 8446 7.1) with an empty Context, by a TLS13-KDF context.
static inline int culvert_HKDF_expand_label(EVP_KDF_CTX *context, const char *digest,
                                            const void *secret, size_t secret_bytes,
                                            const void *label, size_t label_bytes, void *output,
                                            size_t output_bytes) {
  int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)secret, secret_bytes),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PREFIX, "tls13 ", 6),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_LABEL, (void *)label, label_bytes),
      OSSL_PARAM_construct_end(),
  };
  int result = EVP_KDF_derive(context, (unsigned char *)output, output_bytes, parameters);
  EVP_KDF_CTX_reset(context);
  return result;
}

#endif
