/* The entrypoint of a traced container: waits until the watcher is ready, then becomes the real one.
 *
 * Usage: gate PROGRAM [ARGUMENT...]
 * Linked statically, since the image may have no libc, or another one. It waits by opening the FIFO `go` beside
 * itself, which blocks until the host opens its other end. PROGRAM is then looked up as runc does it: in PATH unless it
 * holds a slash; nothing is tried through a shell.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIFO "/.layerlens-gate/go"
#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static int runnable(const char *file)
{
    struct stat found;
    return stat(file, &found) == 0 && S_ISREG(found.st_mode) && access(file, X_OK) == 0;
}

int main(int argc, char **argv, char **envp)
{
    if (argc < 2) {
        fputs("gate: no program\n", stderr);
        return 127;
    }
    int fifo;
    do
        fifo = open(FIFO, O_RDONLY | O_CLOEXEC);
    while (fifo < 0 && errno == EINTR);
    if (fifo < 0) {
        perror("gate: " FIFO);
        return 126;
    }
    close(fifo);
    if (strchr(argv[1], '/')) {
        execve(argv[1], argv + 1, envp);
    } else {
        const char *path = getenv("PATH");
        for (const char *rest = path && *path ? path : DEFAULT_PATH; *rest;) {
            size_t length = strcspn(rest, ":");
            char file[PATH_MAX];
            int size = snprintf(file, sizeof file, "%.*s/%s", (int)length, length ? rest : ".", argv[1]);
            if (size > 0 && (size_t)size < sizeof file && runnable(file)) {
                execve(file, argv + 1, envp);
                break;
            }
            rest += length + (rest[length] == ':');
        }
    }
    fprintf(stderr, "gate: %s: %s\n", argv[1], strerror(errno));
    return 127;
}
