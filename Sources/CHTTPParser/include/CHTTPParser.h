// libhttp_parser: the bit-fields' macro that the Swift importer cannot see.
//
// Header only; no logic lives here.
#ifndef CULVERT_CHTTPPARSER_H
#define CULVERT_CHTTPPARSER_H

#include <http_parser.h>

static inline enum http_errno culvert_http_errno(const http_parser *parser) {
  return HTTP_PARSER_ERRNO(parser);
}

#endif
