#ifndef PLUGIN_H
#define PLUGIN_H

#include <libconfig.h>

#include "textmill.h"

/* The plugin `name` if the configuration lists it, loaded on first use; NULL with `*reason` set otherwise. */
mill_run_function *plugin_find(config_t *configuration, const char *name, const char **reason);

#endif
