#include "plugin.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { MOST_PLUGINS = 32 };

static struct {
    const char *name;
    mill_run_function *run;
} loaded[MOST_PLUGINS];
static int loaded_count;
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

static int is_listed(config_t *configuration, const char *name, const char **listed_name)
{
    config_setting_t *list = config_lookup(configuration, "plugins.load");
    int count = list ? config_setting_length(list) : 0;
    for (int i = 0; i < count; i++) {
        const char *listed = config_setting_get_string_elem(list, i);
        if (listed && strcmp(listed, name) == 0) {
            *listed_name = listed;
            return 1;
        }
    }
    return 0;
}

static mill_run_function *load(config_t *configuration, const char *name, const char **reason)
{
    const char *folder = NULL;
    if (!config_lookup_string(configuration, "plugins.directory", &folder)) {
        *reason = "no plugins.directory in the configuration";
        return NULL;
    }
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.so", folder, name);
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!module) {
        *reason = dlerror();
        return NULL;
    }
    mill_run_function *run;
    *(void **)&run = dlsym(module, "mill_run");
    if (!run)
        *reason = dlerror();
    return run;
}

mill_run_function *plugin_find(config_t *configuration, const char *name, const char **reason)
{
    mill_run_function *run = NULL;
    const char *listed;
    *reason = "no such plugin";
    if (!is_listed(configuration, name, &listed))
        return NULL;
    pthread_mutex_lock(&loading);
    for (int i = 0; i < loaded_count && !run; i++)
        if (strcmp(loaded[i].name, name) == 0)
            run = loaded[i].run;
    if (!run && loaded_count < MOST_PLUGINS && (run = load(configuration, name, reason))) {
        loaded[loaded_count].name = listed;
        loaded[loaded_count++].run = run;
        fprintf(stderr, "textmill: loaded %s\n", name);
    }
    pthread_mutex_unlock(&loading);
    return run;
}
