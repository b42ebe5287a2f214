/* Preloaded into a platform: counts the flushes of the disk and the SQLite connections of all its processes, in a file
   of two numbers that they share. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static long unused[2], *counts = unused;

__attribute__((constructor)) static void begin(void) {
    const char *place = getenv("P22_COUNTS");
    int file = place ? open(place, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *shared = mmap(0, sizeof unused, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED) counts = shared;
    close(file);
}

static int flushed(int file, long number) {
    __atomic_add_fetch(&counts[0], 1, __ATOMIC_RELAXED);
    return syscall(number, file);
}
int fsync(int file) { return flushed(file, SYS_fsync); }
int fdatasync(int file) { return flushed(file, SYS_fdatasync); }

int sqlite3_open_v2(const char *name, void **database, int flags, const char *system) {
    static int (*next)(const char *, void **, int, const char *);
    /* Python loads its library apart from the others, so RTLD_NEXT does not see it. */
    if (!next) *(void **)&next = dlsym(dlopen("libsqlite3.so.0", RTLD_LAZY), "sqlite3_open_v2");
    __atomic_add_fetch(&counts[1], 1, __ATOMIC_RELAXED);
    return next(name, database, flags, system);
}
