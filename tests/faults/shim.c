/* Faults in what a process writes below one folder; loaded by LD_PRELOAD, set by faults_configure.

   Every call that changes the folder is counted: files and folders that are made, writes, syncs, renames, removals.
   kill      at call number `at` the process group gets SIGKILL; every second one after half of a write
   full      from call number `at` on nothing more can be written or made (ENOSPC); renames and removals work; every
             second write at that number still takes half of its bytes, as a disk with a little room does
   once      one call fails like that, number `at` or the first one after it that needs room; then there is room again
   readonly  no call changes anything (EROFS)
   record    the calls are noted, with the content of a file whenever it is synced, for a replay without the rest
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, FULL, READONLY, RECORD, ONCE };
static char root[4096], note[4096];
static int mode = OFF;
static long at = 0;
static long *counter = NULL; /* shared with child processes; behind it, how many calls found no room */
static __thread long latest = 0; /* number of this thread's last call */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int inside = 0;

void faults_configure(const char *folder, int kind, long number, const char *notes) {
  if (!counter) counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  snprintf(root, sizeof root, "%s", folder);
  snprintf(note, sizeof note, "%s", notes);
  counter[0] = counter[1] = 0;
  at = number;
  mode = kind;
}

long faults_count(void) { return counter ? *counter : 0; }

/* A pointer that children share has to exist before they are forked. */
void faults_prepare(void) {
  if (!counter) counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static int below(const char *path) {
  size_t length = strlen(root);
  return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int absolute(int folder, const char *path, char *out) {
  char base[4096], link[64];
  if (path[0] == '/') { snprintf(out, 4096, "%s", path); return 1; }
  if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
  else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t got = readlink(link, base, sizeof base - 1);
    if (got < 0) return 0;
    base[got] = 0;
  }
  if (snprintf(out, 4096, "%s/%s", base, path) >= 4096) return 0;
  return 1;
}

static int of_descriptor(int fd, char *out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t got = readlink(link, out, 4095);
  if (got < 0) return 0;
  out[got] = 0;
  return out[0] == '/';
}

/* What to do with a call: 0 it passes, 1 it is the one to be killed at, or the number of an error. */
static int verdict(int makes_room_less) {
  long number = latest = __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
  if (mode == KILL && number == at) return 1;
  if (mode == FULL && number >= at && makes_room_less) return ENOSPC;
  if (mode == ONCE && number >= at && makes_room_less && !__atomic_fetch_add(counter + 1, 1, __ATOMIC_SEQ_CST))
    return ENOSPC;
  if (mode == READONLY) return EROFS;
  return 0;
}

/* Whether a write that is refused for want of room still takes half of its bytes. */
static int takes_half(int error, size_t size) {
  return error == ENOSPC && mode == FULL && latest == at && at % 2 && size > 1;
}

static void die(void) { kill(-getpgrp(), SIGKILL); for (;;) pause(); }

static void append(const char *line) {
  char path[4200];
  snprintf(path, sizeof path, "%s/calls", note);
  int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (fd >= 0) { syscall(SYS_write, fd, line, strlen(line)); syscall(SYS_close, fd); }
}

static void record(const char *kind, unsigned long inode, const char *one, const char *two) {
  static char line[9000];
  if (mode != RECORD) return;
  pthread_mutex_lock(&lock);
  snprintf(line, sizeof line, "%ld\t%s\t%lu\t%s\t%s\n", *counter, kind, inode, one, two);
  append(line);
  pthread_mutex_unlock(&lock);
}

static unsigned long inode_of(const char *path) {
  struct stat found;
  return lstat(path, &found) ? 0 : (unsigned long)found.st_ino;
}

static void snapshot(int fd, const char *path) {
  struct stat found;
  if (mode != RECORD || fstat(fd, &found)) return;
  if (S_ISREG(found.st_mode)) {
    char copy[4300], link[64], buffer[65536];
    snprintf(copy, sizeof copy, "%s/%ld", note, *counter);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int in = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY, 0);
    int out = syscall(SYS_openat, AT_FDCWD, copy, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t got;
    while (in >= 0 && out >= 0 && (got = syscall(SYS_read, in, buffer, sizeof buffer)) > 0)
      syscall(SYS_write, out, buffer, got);
    if (in >= 0) syscall(SYS_close, in);
    if (out >= 0) syscall(SYS_close, out);
  }
  record("sync", found.st_ino, path, "");
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int opened(int folder, const char *path, int flags, mode_t bits, int (*call)(int, const char *, int, mode_t)) {
  char full[4096];
  int writes = flags & (O_CREAT | O_TRUNC) && (flags & O_ACCMODE) != O_RDONLY;
  if (mode == OFF || inside || !writes || !absolute(folder, path, full) || !below(full)) return call(folder, path, flags, bits);
  int error = verdict(1);
  if (error == 1) die();
  if (error) { errno = error; return -1; }
  inside = 1;
  int existed = inode_of(full) != 0;
  int fd = call(folder, path, flags, bits);
  if (fd >= 0 && (!existed || flags & O_TRUNC)) record(existed ? "truncate" : "create", inode_of(full), full, "");
  inside = 0;
  return fd;
}

static int raw_open(int folder, const char *path, int flags, mode_t bits) {
  return (int)syscall(SYS_openat, folder, path, flags, bits);
}

#define MODE_ARGUMENT(flags) \
  mode_t bits = 0; \
  if ((flags) & (O_CREAT | __O_TMPFILE)) { va_list list; va_start(list, flags); bits = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) { MODE_ARGUMENT(flags) return opened(AT_FDCWD, path, flags, bits, raw_open); }
int open64(const char *path, int flags, ...) { MODE_ARGUMENT(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, bits, raw_open); }
int openat(int folder, const char *path, int flags, ...) { MODE_ARGUMENT(flags) return opened(folder, path, flags, bits, raw_open); }
int openat64(int folder, const char *path, int flags, ...) { MODE_ARGUMENT(flags) return opened(folder, path, flags | O_LARGEFILE, bits, raw_open); }

/* Whether a call on a descriptor is to be looked at; `error` is its verdict. */
static int watched(int fd, int makes_room_less, int *error) {
  char full[4096];
  if (mode == OFF || inside || !of_descriptor(fd, full) || !below(full)) return 0;
  *error = verdict(makes_room_less);
  return 1;
}

ssize_t write(int fd, const void *data, size_t size) {
  int error;
  if (watched(fd, 1, &error)) {
    if (error == 1) { if (at % 2) syscall(SYS_write, fd, data, size / 2); die(); }
    if (takes_half(error, size)) return syscall(SYS_write, fd, data, size / 2);
    if (error) { errno = error; return -1; }
  }
  return syscall(SYS_write, fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) {
  int error;
  if (watched(fd, 1, &error)) {
    if (error == 1) { if (at % 2) syscall(SYS_pwrite64, fd, data, size / 2, place); die(); }
    if (takes_half(error, size)) return syscall(SYS_pwrite64, fd, data, size / 2, place);
    if (error) { errno = error; return -1; }
  }
  return syscall(SYS_pwrite64, fd, data, size, place);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t place) { return pwrite64(fd, data, size, place); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
  int error;
  if (watched(fd, 1, &error)) {
    if (error == 1) { if (at % 2 && count) syscall(SYS_writev, fd, parts, 1); die(); }
    if (error) { errno = error; return -1; }
  }
  return syscall(SYS_writev, fd, parts, count);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *stream) {
  int error;
  if (watched(fileno(stream), 1, &error)) {
    if (error == 1) { if (at % 2) { REAL(fwrite)(data, size, count / 2, stream); fflush(stream); } die(); }
    if (error) { errno = error; return 0; }
  }
  return REAL(fwrite)(data, size, count, stream);
}

ssize_t sendfile64(int out, int in, off64_t *place, size_t size) {
  int error;
  if (watched(out, 1, &error)) {
    if (error == 1) { if (at % 2) syscall(SYS_sendfile, out, in, place, size > 1000 ? 500 : 1); die(); }
    if (error) { errno = error; return -1; }
  }
  return syscall(SYS_sendfile, out, in, place, size);
}
ssize_t sendfile(int out, int in, off_t *place, size_t size) { return sendfile64(out, in, place, size); }

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
  int error;
  if (watched(out, 1, &error)) {
    if (error == 1) die();
    if (error) { errno = error; return -1; }
  }
  return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
}

int ftruncate64(int fd, off64_t size) {
  int error;
  if (watched(fd, 1, &error)) {
    if (error == 1) die();
    if (error) { errno = error; return -1; }
  }
  return syscall(SYS_ftruncate, fd, size);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, long call) {
  int error;
  char full[4096];
  int seen = watched(fd, 1, &error);
  if (seen && error == 1) die();
  if (seen && error) { errno = error; return -1; }
  int result = syscall(call, fd);
  if (seen && !result && of_descriptor(fd, full)) { inside = 1; snapshot(fd, full); inside = 0; }
  return result;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int changed(const char *kind, int folder, const char *one, int other, const char *two, int needs_room, long call, long flags) {
  char first[4096], second[4096] = "";
  int inside_root = mode != OFF && !inside && absolute(folder, one, first) && (!two || absolute(other, two, second)) &&
                    (below(first) || (two && below(second)));
  unsigned long inode = 0;
  if (inside_root) {
    int error = verdict(needs_room);
    if (error == 1) die();
    if (error) { errno = error; return -1; }
    inode = inode_of(first);
  }
  int result = two ? syscall(call, folder, one, other, two, flags) : syscall(call, folder, one, flags);
  if (inside_root && !result) record(kind, inode, first, second);
  return result;
}

int rename(const char *one, const char *two) { return changed("rename", AT_FDCWD, one, AT_FDCWD, two, 0, SYS_renameat2, 0); }
int renameat(int a, const char *one, int b, const char *two) { return changed("rename", a, one, b, two, 0, SYS_renameat2, 0); }
int link(const char *one, const char *two) { return changed("link", AT_FDCWD, one, AT_FDCWD, two, 1, SYS_linkat, 0); }
int linkat(int a, const char *one, int b, const char *two, int flags) { return changed("link", a, one, b, two, 1, SYS_linkat, flags); }
int mkdir(const char *path, mode_t bits) { return changed("mkdir", AT_FDCWD, path, 0, NULL, 1, SYS_mkdirat, bits); }
int mkdirat(int folder, const char *path, mode_t bits) { return changed("mkdir", folder, path, 0, NULL, 1, SYS_mkdirat, bits); }
int unlink(const char *path) { return changed("remove", AT_FDCWD, path, 0, NULL, 0, SYS_unlinkat, 0); }
int rmdir(const char *path) { return changed("remove", AT_FDCWD, path, 0, NULL, 0, SYS_unlinkat, AT_REMOVEDIR); }
int unlinkat(int folder, const char *path, int flags) { return changed("remove", folder, path, 0, NULL, 0, SYS_unlinkat, flags); }
