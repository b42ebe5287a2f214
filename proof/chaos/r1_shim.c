/* Preloaded into a process: logs what it does to the files below R1_ROOT, in order, into R1_LOG; at the call with the
   number R1_KILL_AT it kills the process instead. `r1_disk.py` reads the log.

   A line of the log: kind, inode, offset, length of the first path, length of the second part; then both parts. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int log_file = -1;
static long calls, kill_at = -1;

__attribute__((constructor)) static void begin(void) {
    const char *place = getenv("R1_ROOT"), *log = getenv("R1_LOG"), *kill_number = getenv("R1_KILL_AT");
    if (!place || !log) return;
    snprintf(root, sizeof root, "%s/", place);
    root_length = strlen(root);
    if (kill_number && *kill_number) kill_at = atol(kill_number);
    log_file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path) {
    return log_file >= 0 && (!strncmp(path, root, root_length) || !strncmp(path, root, root_length - 1) && !path[root_length - 1]);
}

/* Write the path that a call means into `found`; return whether it is below the root. */
static int resolved(int folder, const char *path, char *found) {
    if (!path || log_file < 0) return 0;
    if (path[0] == '/') {
        snprintf(found, PATH_MAX, "%s", path);
    } else {
        char link[64], base[PATH_MAX];
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, base, sizeof base - 1);
        if (length < 0) return 0;
        base[length] = 0;
        if (snprintf(found, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    }
    return is_ours(found);
}

static int path_of(int file, char *found) {
    if (log_file < 0) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, found, PATH_MAX - 1);
    if (length < 0) return 0;
    found[length] = 0;
    return is_ours(found);
}

static unsigned long inode_of(int file) {
    struct stat about;
    return fstat(file, &about) ? 0 : about.st_ino;
}

static void enter(void) {
    pthread_mutex_lock(&lock);
    if (calls++ == kill_at) kill(getpid(), SIGKILL);
}

static void leave(char kind, unsigned long inode, long offset, const char *path, const void *more, size_t length) {
    char head[128];
    int size = snprintf(head, sizeof head, "%c %lu %ld %zu %zu\n", kind, inode, offset, strlen(path), length);
    struct iovec parts[3] = {{head, size}, {(void *)path, strlen(path)}, {(void *)more, length}};
    if (syscall(SYS_writev, log_file, parts, 3) != (ssize_t)(size + strlen(path) + length)) abort();
    pthread_mutex_unlock(&lock);
}

static void leave_failed(int error) {
    calls--;
    pthread_mutex_unlock(&lock);
    errno = error;
}

static int opened(int folder, const char *path, int flags, mode_t mode) {
    char found[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !resolved(folder, path, found)) return syscall(SYS_openat, folder, path, flags, mode);
    enter();
    int is_new = syscall(SYS_faccessat, AT_FDCWD, found, F_OK) != 0;
    int file = syscall(SYS_openat, folder, path, flags, mode);
    if (file < 0) return leave_failed(errno), -1;
    if (is_new) leave('c', inode_of(file), 0, found, "", 0);
    else if (flags & O_TRUNC) leave('t', inode_of(file), 0, found, "", 0);
    else leave_failed(0);
    return file;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        return opened(AT_FDCWD, path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        return opened(folder, path, flags, mode); \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

static ssize_t written(int file, const void *data, size_t length, off_t offset) {
    char found[PATH_MAX];
    int is_logged = path_of(file, found);
    if (is_logged) {
        enter();
        if (offset < 0 && (offset = lseek(file, 0, fcntl(file, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR)) < 0) abort();
        ssize_t done = syscall(SYS_pwrite64, file, data, length, offset);
        if (done < 0) return leave_failed(errno), -1;
        leave('w', inode_of(file), offset, found, data, done);
        return done;
    }
    return offset < 0 ? syscall(SYS_write, file, data, length) : syscall(SYS_pwrite64, file, data, length, offset);
}

ssize_t write(int file, const void *data, size_t length) {
    char found[PATH_MAX];
    if (file <= 2 || !path_of(file, found)) return syscall(SYS_write, file, data, length);
    ssize_t done = written(file, data, length, -1);
    if (done > 0 && !(fcntl(file, F_GETFL) & O_APPEND)) lseek(file, done, SEEK_CUR);
    return done;
}

ssize_t pwrite(int file, const void *data, size_t length, off_t offset) { return written(file, data, length, offset); }
ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) { return written(file, data, length, offset); }

ssize_t writev(int file, const struct iovec *parts, int count) {
    char found[PATH_MAX];
    if (!path_of(file, found)) return syscall(SYS_writev, file, parts, count);
    for (int place = 0; place < count; place++)
        if (parts[place].iov_len) return write(file, parts[place].iov_base, parts[place].iov_len);
    return 0;
}

static int truncated(int file, off_t length) {
    char found[PATH_MAX];
    if (!path_of(file, found)) return syscall(SYS_ftruncate, file, length);
    enter();
    if (syscall(SYS_ftruncate, file, length)) return leave_failed(errno), -1;
    leave('t', inode_of(file), length, found, "", 0);
    return 0;
}
int ftruncate(int file, off_t length) { return truncated(file, length); }
int ftruncate64(int file, off64_t length) { return truncated(file, length); }

static int synced(int file, long number) {
    char found[PATH_MAX];
    struct stat about;
    if (!path_of(file, found)) return syscall(number, file);
    enter();
    if (syscall(number, file) || fstat(file, &about)) return leave_failed(errno), -1;
    leave(S_ISDIR(about.st_mode) ? 'd' : 's', about.st_ino, 0, found, "", 0);
    return 0;
}
int fsync(int file) { return synced(file, SYS_fsync); }
int fdatasync(int file) { return synced(file, SYS_fdatasync); }

static int moved(char kind, long number, int from, const char *old, int to, const char *new, int flags) {
    char first[PATH_MAX], second[PATH_MAX];
    int is_logged = resolved(from, old, first);
    if (!resolved(to, new, second) && !is_logged) return syscall(number, from, old, to, new, flags);
    enter();
    if (syscall(number, from, old, to, new, flags)) return leave_failed(errno), -1;
    leave(kind, 0, 0, first, second, strlen(second));
    return 0;
}
int link(const char *old, const char *new) { return moved('l', SYS_linkat, AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) { return moved('l', SYS_linkat, from, old, to, new, flags); }
int rename(const char *old, const char *new) { return moved('r', SYS_renameat2, AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return moved('r', SYS_renameat2, from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) { return moved('r', SYS_renameat2, from, old, to, new, flags); }

static int removed(char kind, int folder, const char *path, int flags) {
    char found[PATH_MAX];
    if (!resolved(folder, path, found)) return syscall(SYS_unlinkat, folder, path, flags);
    enter();
    if (syscall(SYS_unlinkat, folder, path, flags)) return leave_failed(errno), -1;
    leave(kind, 0, 0, found, "", 0);
    return 0;
}
int unlink(const char *path) { return removed('u', AT_FDCWD, path, 0); }
int rmdir(const char *path) { return removed('x', AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int folder, const char *path, int flags) { return removed(flags & AT_REMOVEDIR ? 'x' : 'u', folder, path, flags); }

static int made(int folder, const char *path, mode_t mode) {
    char found[PATH_MAX];
    if (!resolved(folder, path, found)) return syscall(SYS_mkdirat, folder, path, mode);
    enter();
    if (syscall(SYS_mkdirat, folder, path, mode)) return leave_failed(errno), -1;
    leave('m', 0, 0, found, "", 0);
    return 0;
}
int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return made(folder, path, mode); }
