/* What a plugin sees. */
#ifndef TEXTMILL_H
#define TEXTMILL_H

#include <stddef.h>

struct mill_request {
    const char *text;     /* ?text=, never NULL */
    const char *argument; /* ?arg=, or NULL */
    const char *(*setting)(const char *name); /* of the plugin's section in the configuration, or NULL */
};

struct mill_reply {
    char *text; /* freed by the caller */
};

/* Each plugin exports `mill_run`: an HTTP status, with the reply's text set. */
typedef int mill_run_function(const struct mill_request *request, struct mill_reply *reply);

int mill_run(const struct mill_request *request, struct mill_reply *reply);

#endif
