/* Watches which files of a container's root filesystem its processes open, and by which names they ask for them.
 *
 * Usage: watch PID > RECORDS
 * PID is the container's first process, still held at its gate. Two sources, written as NUL-terminated records:
 *
 *   O<path>  fanotify saw the file opened or executed (FAN_MARK_FILESYSTEM on /proc/PID/root; the path has no links)
 *   F<path>  a system call named this path and follows a link at its end (open, execve, stat, chdir ...)
 *   N<path>  a system call named this path and does not (lstat, readlink, O_NOFOLLOW ...)
 *
 * F and N come from ptrace, since fanotify does not tell which symbolic links were walked; they are what was asked, whether or
 * not it is there. The interpreter of an executed ELF file or script is asked for by the kernel, so it is read from the file.
 * "ready" goes to stderr once both are in place; SIGTERM, or the end of every traced process, ends it after the
 * queue is drained. Losing events (queue overflow) is an error: exit 3.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/ptrace.h> /* after sys/ptrace.h */

static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;
static volatile sig_atomic_t ending;
static int overflow;

static void die(const char *what)
{
    fprintf(stderr, "watch: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void record(char kind, const char *path)
{
    pthread_mutex_lock(&output);
    putchar(kind);
    fputs(path, stdout);
    putchar('\0');
    pthread_mutex_unlock(&output);
}

/* --- fanotify ------------------------------------------------------------------------------------------- */

/* Reads what is queued; returns the number of events. */
static int drain(int queue)
{
    static char buffer[1 << 16] __attribute__((aligned(8)));
    int events = 0;
    ssize_t length = read(queue, buffer, sizeof buffer);
    struct fanotify_event_metadata *event = (void *)buffer;
    for (; FAN_EVENT_OK(event, length); event = FAN_EVENT_NEXT(event, length)) {
        events++;
        if (event->mask & FAN_Q_OVERFLOW)
            overflow = 1;
        if (event->fd < 0)
            continue;
        if (event->pid != getpid()) {
            char link[64], path[PATH_MAX];
            snprintf(link, sizeof link, "/proc/self/fd/%d", event->fd);
            ssize_t size = readlink(link, path, sizeof path - 1);
            if (size > 0) {
                path[size] = '\0';
                record('O', path);
            }
        }
        close(event->fd);
    }
    return events;
}

static void *watch_files(void *argument)
{
    int queue = *(int *)argument;
    struct pollfd waiting = {queue, POLLIN, 0};
    for (;;) {
        int more = poll(&waiting, 1, 100) > 0 && drain(queue) > 0;
        if (ending && !more)
            return NULL;
    }
}

/* --- names in system calls ------------------------------------------------------------------------------ */

enum { AT = 1, EXEC = 2, NOFOLLOW = 4 }; /* AT: a directory's descriptor stands before the path */

/* What to do with a call: which argument is the path, and which one holds flags (-1: none). */
struct call {
    long number;
    int kind, path, flags, nofollow;
};

static const struct call calls[] = {
#ifdef SYS_open
    {SYS_open, 0, 0, 1, O_NOFOLLOW},
    {SYS_creat, 0, 0, -1, 0},
    {SYS_stat, 0, 0, -1, 0},
    {SYS_lstat, NOFOLLOW, 0, -1, 0},
    {SYS_access, 0, 0, -1, 0},
    {SYS_readlink, NOFOLLOW, 0, -1, 0},
#endif
    {SYS_openat, AT, 1, 2, O_NOFOLLOW},
    {SYS_openat2, AT, 1, -1, 0},
    {SYS_execve, EXEC, 0, -1, 0},
    {SYS_execveat, AT | EXEC, 1, 4, AT_SYMLINK_NOFOLLOW},
#ifdef SYS_newfstatat
    {SYS_newfstatat, AT, 1, 3, AT_SYMLINK_NOFOLLOW},
#endif
    {SYS_statx, AT, 1, 2, AT_SYMLINK_NOFOLLOW},
    {SYS_faccessat, AT, 1, -1, 0},
    {SYS_faccessat2, AT, 1, 3, AT_SYMLINK_NOFOLLOW},
    {SYS_readlinkat, AT | NOFOLLOW, 1, -1, 0},
    {SYS_chdir, 0, 0, -1, 0},
    {SYS_chroot, 0, 0, -1, 0},
    {SYS_statfs, 0, 0, -1, 0},
    {SYS_truncate, 0, 0, -1, 0},
    {SYS_getxattr, 0, 0, -1, 0},
    {SYS_inotify_add_watch, AT, 1, -1, 0},
};

/* Copies a string out of another process; 0 if it cannot be read or is too long. */
static int read_string(pid_t task, unsigned long long address, char *text)
{
    size_t have = 0;
    while (have < PATH_MAX - 1) {
        size_t page_rest = 4096 - (address + have) % 4096;
        size_t want = page_rest < PATH_MAX - 1 - have ? page_rest : PATH_MAX - 1 - have;
        struct iovec here = {text + have, want}, there = {(void *)(address + have), want};
        ssize_t size = process_vm_readv(task, &here, 1, &there, 1, 0);
        if (size <= 0)
            return 0;
        if (memchr(text + have, '\0', size))
            return 1;
        have += size;
    }
    return 0;
}

/* Makes a path absolute: from the task's working directory, or from an open directory of it. */
static int absolute(pid_t task, int directory, const char *path, char *whole)
{
    if (path[0] == '/')
        return snprintf(whole, 2 * PATH_MAX, "%s", path) > 0;
    char link[64], base[PATH_MAX];
    if (directory == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/%d/cwd", task);
    else
        snprintf(link, sizeof link, "/proc/%d/fd/%d", task, directory);
    ssize_t size = readlink(link, base, sizeof base - 1);
    if (size <= 0 || base[0] != '/')
        return 0;
    base[size] = '\0';
    return snprintf(whole, 2 * PATH_MAX, "%s/%s", base, path) > 0;
}

/* Records the interpreter that the kernel will ask for when it executes this file: an ELF file's, or a script's. */
static void record_interpreter(pid_t task, const char *file, int depth)
{
    char root_path[64], start[PATH_MAX] = "";
    snprintf(root_path, sizeof root_path, "/proc/%d/root", task);
    int root = open(root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return;
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_IN_ROOT};
    int opened = syscall(SYS_openat2, root, file, &how, sizeof how);
    close(root);
    if (opened < 0)
        return;
    struct stat found;
    if (fstat(opened, &found) == 0 && S_ISREG(found.st_mode) && found.st_mode & 0111) {
        ssize_t size = pread(opened, start, sizeof start - 1, 0);
        if (size > 2 && !memcmp(start, "#!", 2)) {
            char *name = start + 2 + strspn(start + 2, " \t");
            name[strcspn(name, " \t\r\n")] = '\0';
            if (name[0] == '/') {
                record('F', name);
                if (depth < 4)
                    record_interpreter(task, name, depth + 1);
            }
        } else if (size > (ssize_t)sizeof(Elf64_Ehdr) && !memcmp(start, ELFMAG, SELFMAG) &&
                   start[EI_CLASS] == ELFCLASS64) {
            Elf64_Ehdr *header = (void *)start;
            for (int index = 0; index < header->e_phnum; index++) {
                Elf64_Phdr segment;
                if (pread(opened, &segment, sizeof segment, header->e_phoff + index * sizeof segment) !=
                    sizeof segment)
                    break;
                if (segment.p_type == PT_INTERP && segment.p_filesz < PATH_MAX) {
                    char name[PATH_MAX] = "";
                    if (pread(opened, name, segment.p_filesz, segment.p_offset) > 0)
                        record('F', name);
                }
            }
        }
    }
    close(opened);
}

static void record_call(pid_t task)
{
    struct ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, task, sizeof info, &info) <= 0 || info.op != PTRACE_SYSCALL_INFO_ENTRY)
        return;
    for (size_t index = 0; index < sizeof calls / sizeof *calls; index++) {
        const struct call *call = &calls[index];
        if ((long)info.entry.nr != call->number)
            continue;
        char path[PATH_MAX], whole[2 * PATH_MAX];
        if (!info.entry.args[call->path] || !read_string(task, info.entry.args[call->path], path) || !path[0])
            return;
        int directory = call->kind & AT ? (int)info.entry.args[call->path - 1] : AT_FDCWD;
        if (!absolute(task, directory, path, whole))
            return;
        int nofollow = call->kind & NOFOLLOW ||
                       (call->flags >= 0 && info.entry.args[call->flags] & (unsigned)call->nofollow);
        record(nofollow ? 'N' : 'F', whole);
        if (call->kind & EXEC)
            record_interpreter(task, whole, 0);
        return;
    }
}

/* Traces every task until none is left. The container's own signals pass through. */
static void trace_calls(void)
{
    for (;;) {
        int status;
        pid_t task = waitpid(-1, &status, __WALL);
        if (task < 0 && errno == EINTR) {
            if (ending)
                return;
            continue;
        }
        if (task < 0)
            return; /* ECHILD: all gone */
        if (!WIFSTOPPED(status))
            continue;
        int signal_number = WSTOPSIG(status), event = status >> 16, deliver = 0;
        if (signal_number == (SIGTRAP | 0x80)) {
            record_call(task);
        } else if (event == PTRACE_EVENT_STOP) {
            if (signal_number == SIGSTOP || signal_number == SIGTSTP || signal_number == SIGTTIN ||
                signal_number == SIGTTOU) { /* a group stop: leave it stopped, but hear what comes next */
                ptrace(PTRACE_LISTEN, task, 0, 0);
                continue;
            }
        } else if (!event) {
            deliver = signal_number;
        }
        ptrace(PTRACE_SYSCALL, task, 0, deliver);
    }
}

static void end(int number)
{
    (void)number;
    ending = 1;
}

int main(int argc, char **argv)
{
    pid_t first = argc == 2 ? atoi(argv[1]) : 0;
    if (first <= 0) {
        fputs("usage: watch PID\n", stderr);
        return 2;
    }
    struct sigaction action = {.sa_handler = end}; /* no SA_RESTART: waitpid must come back */
    sigaction(SIGTERM, &action, NULL);
    int queue = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE,
                              O_RDONLY | O_LARGEFILE | O_CLOEXEC);
    if (queue < 0)
        die("fanotify_init");
    char root[64];
    snprintf(root, sizeof root, "/proc/%d/root", first);
    if (fanotify_mark(queue, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN | FAN_OPEN_EXEC, AT_FDCWD, root) < 0)
        die("fanotify_mark");
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                   PTRACE_O_TRACEEXEC;
    if (ptrace(PTRACE_SEIZE, first, 0, options) < 0)
        die("ptrace");
    if (ptrace(PTRACE_INTERRUPT, first, 0, 0) < 0)
        die("ptrace");
    sigset_t only_here; /* SIGTERM must interrupt waitpid, so the other thread never takes it */
    sigemptyset(&only_here);
    sigaddset(&only_here, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &only_here, NULL);
    pthread_t watcher;
    if ((errno = pthread_create(&watcher, NULL, watch_files, &queue)))
        die("pthread_create");
    pthread_sigmask(SIG_UNBLOCK, &only_here, NULL);
    fputs("ready\n", stderr);
    trace_calls();
    ending = 1;
    pthread_join(watcher, NULL);
    if (fflush(stdout))
        die("write");
    if (overflow)
        fputs("watch: the queue overflowed\n", stderr);
    return overflow ? 3 : 0;
}
