// libnghttp2, as it is: everything culvert uses is visible to the Swift importer.
#ifndef CULVERT_CHTTP2_H
#define CULVERT_CHTTP2_H

#include <nghttp2/nghttp2.h>

#endif
