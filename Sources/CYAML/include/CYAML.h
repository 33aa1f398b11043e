// libyaml, as it is: everything culvert uses is visible to the Swift importer.
#ifndef CULVERT_CYAML_H
#define CULVERT_CYAML_H

#include <yaml.h>

#endif
