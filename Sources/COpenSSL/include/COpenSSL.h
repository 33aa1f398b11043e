// libssl and libcrypto: the macros and typed stacks the Swift importer cannot see.
//
// Header only: each function below wraps one macro. No logic lives here.
#ifndef CULVERT_COPENSSL_H
#define CULVERT_COPENSSL_H

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#endif
