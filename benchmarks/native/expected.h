/* What the right answers are: the tables that benchmarks/datasets.py writes.
 *
 * Lives here: reading them.  Used by the load generator, which compares every
 * octet with them, and by the sendfile server, which serves them.
 *
 *   DIR/users.txt     a line each: name password first count octets
 *                     list_offset list_length uidl_offset uidl_length
 *   DIR/messages.bin  uint64 triples: octets, offset, length
 *   DIR/wire.bin      multi-line replies as they go over the wire, dot-stuffed,
 *                     with their final dot, without the status line
 */
#ifndef EXPECTED_H
#define EXPECTED_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct message {
    uint64_t octets, offset, length;
};

struct user {
    char name[64], password[64];
    uint64_t first, count, octets;
    uint64_t list_offset, list_length, uidl_offset, uidl_length;
};

struct expected {
    struct user *users;
    size_t user_count;
    const struct message *messages;
    const char *wire;
    int wire_fd;
};

static void die(const char *what, const char *about)
{
    fprintf(stderr, "%s: %s\n", what, about);
    exit(2);
}

static const void *map_file(const char *dir, const char *name, int *fd_out)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        die("cannot open", path);
    const void *at = "";
    if (st.st_size > 0) {
        at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED)
            die("cannot map", path);
    }
    if (fd_out)
        *fd_out = fd;
    else
        close(fd);
    return at;
}

static struct expected load_expected(const char *dir)
{
    struct expected e = {0};
    char path[4096];
    snprintf(path, sizeof path, "%s/users.txt", dir);
    FILE *f = fopen(path, "r");
    if (!f)
        die("cannot open", path);
    size_t room = 0;
    struct user u;
    while (fscanf(f, "%63s %63s %lu %lu %lu %lu %lu %lu %lu", u.name, u.password, &u.first, &u.count,
                  &u.octets, &u.list_offset, &u.list_length, &u.uidl_offset, &u.uidl_length) == 9) {
        if (e.user_count == room) {
            room = room ? room * 2 : 128;
            e.users = realloc(e.users, room * sizeof *e.users);
            if (!e.users)
                die("no memory for", path);
        }
        e.users[e.user_count++] = u;
    }
    fclose(f);
    if (!e.user_count)
        die("no users in", path);
    e.messages = map_file(dir, "messages.bin", NULL);
    e.wire = map_file(dir, "wire.bin", &e.wire_fd);
    return e;
}

#endif
