/* Seconds since 1970 as clocks in a zone show them. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "textmill.h"

static pthread_mutex_t zone_in_use = PTHREAD_MUTEX_INITIALIZER;

int mill_run(const struct mill_request *request, struct mill_reply *reply)
{
    const char *zone = request->argument ? request->argument : request->setting("zone");
    time_t instant = strtoll(request->text, NULL, 10);
    struct tm local;
    char shown[96];
    pthread_mutex_lock(&zone_in_use);
    setenv("TZ", zone ? zone : "UTC", 1);
    tzset();
    localtime_r(&instant, &local);
    strftime(shown, sizeof shown, "%F %T %Z\n", &local);
    pthread_mutex_unlock(&zone_in_use);
    reply->text = strdup(shown);
    return 200;
}
