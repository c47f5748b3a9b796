/* textmill: an HTTP service whose every function is a plugin named in its configuration. */
#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

#define VERSION "2.1.0"

static config_t configuration;
static _Thread_local const char *current_plugin;

static const char *setting(const char *name)
{
    char path[256];
    const char *value = NULL;
    snprintf(path, sizeof path, "%s.%s", current_plugin, name);
    config_lookup_string(&configuration, path, &value);
    return value;
}

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result on_request(void *closure, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload, size_t *upload_size,
                                  void **state)
{
    (void)closure, (void)version, (void)upload, (void)upload_size, (void)state;
    char *message = NULL;
    if (strcmp(method, "GET") != 0)
        return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, strdup("only GET\n"));
    if (strncmp(url, "/run/", 5) != 0) {
        if (asprintf(&message, "nothing at %s\n", url) < 0)
            return MHD_NO;
        return answer(connection, MHD_HTTP_NOT_FOUND, message);
    }

    const char *name = url + 5;
    const char *reason;
    mill_run_function *run = plugin_find(&configuration, name, &reason);
    if (!run) {
        if (asprintf(&message, "%s: %s\n", name, reason) < 0)
            return MHD_NO;
        return answer(connection, MHD_HTTP_NOT_FOUND, message);
    }
    const char *text = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "text");
    struct mill_request request = {
        .text = text ? text : "",
        .argument = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "arg"),
        .setting = setting,
    };
    struct mill_reply reply = {0};
    current_plugin = name;
    int status = run(&request, &reply);
    return answer(connection, status, reply.text ? reply.text : strdup(""));
}

int main(int count, char **words)
{
    const char *file = "/etc/textmill/textmill.conf";
    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--version") == 0) {
            printf("textmill %s, libmicrohttpd %s\n", VERSION, MHD_get_version());
            return 0;
        }
        if (strcmp(words[i], "--config") == 0 && i + 1 < count) {
            file = words[++i];
        } else {
            fprintf(stderr, "usage: textmill [--version] [--config FILE]\n");
            return 2;
        }
    }

    config_init(&configuration);
    if (!config_read_file(&configuration, file)) {
        const char *where = config_error_file(&configuration);
        fprintf(stderr, "textmill: %s: %s (line %d)\n", where ? where : file, config_error_text(&configuration),
                config_error_line(&configuration));
        return 1;
    }
    int port = 8080;
    config_lookup_int(&configuration, "port", &port);

    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    sigprocmask(SIG_BLOCK, &stop, NULL);
    struct MHD_Daemon *server = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION,
                                                 port, NULL, NULL, on_request, NULL, MHD_OPTION_END);
    if (!server) {
        fprintf(stderr, "textmill: cannot listen on port %d\n", port);
        return 1;
    }
    fprintf(stderr, "textmill: listening on port %d\n", port);
    int received;
    sigwait(&stop, &received);
    MHD_stop_daemon(server);
    config_destroy(&configuration);
    return 0;
}
