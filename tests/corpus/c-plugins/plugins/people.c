/* A user of this system by name, or the one the service runs as. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "textmill.h"

int mill_run(const struct mill_request *request, struct mill_reply *reply)
{
    char user_buffer[4096], group_buffer[4096];
    struct passwd user, *found = NULL;
    struct group group, *primary = NULL;
    if (*request->text)
        getpwnam_r(request->text, &user, user_buffer, sizeof user_buffer, &found);
    else
        getpwuid_r(getuid(), &user, user_buffer, sizeof user_buffer, &found);
    if (!found) {
        reply->text = strdup("no such user\n");
        return 404;
    }
    getgrgid_r(user.pw_gid, &group, group_buffer, sizeof group_buffer, &primary);
    if (asprintf(&reply->text, "user=%s group=%s home=%s\n", user.pw_name, primary ? group.gr_name : "?",
                 user.pw_dir) < 0)
        reply->text = NULL;
    return 200;
}
