/* A POP3 "server" that does nothing but sendfile: the ceiling of this machine.
 *
 * It checks no password, opens no mailbox and transforms nothing: every
 * multi-line reply lies ready in one file (see expected.h).  What it reaches
 * is what system calls and loopback cost; no real server can be faster, and a
 * load generator that drives it this fast is not what holds the others back.
 *
 *   sendfile_server DIR [DIR...]   listens on a free port of 127.0.0.1 and prints it
 */
#define _GNU_SOURCE
#include "expected.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <search.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

struct place {
    const struct expected *set;
    const struct user *user;
};

struct conn {
    int fd, quitting, want_write;
    const struct place *place;
    char in[4096], out[4096];
    size_t in_length, out_length, out_sent;
    off_t file_offset;
    size_t file_left;
};

static int ep;

static const struct place *find_user(const char *name)
{
    ENTRY *found = hsearch((ENTRY){.key = (char *)name}, FIND);
    return found ? found->data : NULL;
}

static void say(struct conn *c, const char *text)
{
    size_t n = strlen(text);
    memcpy(c->out + c->out_length, text, n);
    c->out_length += n;
}

/* 1: all is out; 0: the socket is full; -1: the peer is gone. */
static int flush(struct conn *c)
{
    while (c->out_sent < c->out_length) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_length - c->out_sent,
                         MSG_NOSIGNAL | (c->file_left ? MSG_MORE : 0));
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        c->out_sent += (size_t)n;
    }
    c->out_sent = c->out_length = 0;
    while (c->file_left) {
        ssize_t n = sendfile(c->fd, c->place->set->wire_fd, &c->file_offset, c->file_left);
        if (n < 0)
            return errno == EAGAIN ? 0 : -1;
        if (n == 0)
            return -1;
        c->file_left -= (size_t)n;
    }
    return 1;
}

static void answer_file(struct conn *c, uint64_t offset, uint64_t length)
{
    say(c, "+OK\r\n");
    c->file_offset = (off_t)offset;
    c->file_left = length;
}

static void answer(struct conn *c, char *line)
{
    char text[128];
    const struct user *u = c->place ? c->place->user : NULL;
    if (!strncmp(line, "USER ", 5)) {
        c->place = find_user(line + 5);
        say(c, "+OK\r\n");
    } else if (!strncmp(line, "QUIT", 4)) {
        say(c, "+OK\r\n");
        c->quitting = 1;
    } else if (!u) {
        say(c, "-ERR\r\n");
    } else if (!strncmp(line, "PASS ", 5)) {
        say(c, "+OK\r\n");
    } else if (!strncmp(line, "STAT", 4)) {
        snprintf(text, sizeof text, "+OK %lu %lu\r\n", u->count, u->octets);
        say(c, text);
    } else if (!strncmp(line, "LIST", 4)) {
        answer_file(c, u->list_offset, u->list_length);
    } else if (!strncmp(line, "UIDL", 4)) {
        answer_file(c, u->uidl_offset, u->uidl_length);
    } else if (!strncmp(line, "RETR ", 5)) {
        unsigned long n = strtoul(line + 5, NULL, 10);
        if (n < 1 || n > u->count) {
            say(c, "-ERR\r\n");
            return;
        }
        const struct message *m = &c->place->set->messages[u->first + n - 1];
        answer_file(c, m->offset, m->length);
    } else {
        say(c, "-ERR\r\n");
    }
}

static void drop(struct conn *c)
{
    close(c->fd);
    free(c);
}

static void watch(struct conn *c, int want_write)
{
    if (c->want_write == want_write)
        return;
    c->want_write = want_write;
    struct epoll_event ev = {.events = want_write ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
}

static void serve(struct conn *c)
{
    for (;;) {
        char *end;
        size_t done = 0;
        /* Small answers are gathered while there is room and input for more. */
        while (!c->quitting && !c->file_left && c->out_length < sizeof c->out - 256 &&
               (end = memchr(c->in + done, '\n', c->in_length - done))) {
            *end = 0;
            if (end > c->in + done && end[-1] == '\r')
                end[-1] = 0;
            answer(c, c->in + done);
            done = (size_t)(end - c->in) + 1;
        }
        c->in_length -= done;
        memmove(c->in, c->in + done, c->in_length);
        int state = flush(c);
        if (state < 0 || (state && c->quitting)) {
            drop(c);
            return;
        }
        if (!state) {
            watch(c, 1);
            return;
        }
        if (c->in_length && memchr(c->in, '\n', c->in_length))
            continue;
        watch(c, 0);
        ssize_t n = recv(c->fd, c->in + c->in_length, sizeof c->in - c->in_length, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            drop(c);
            return;
        }
        c->in_length += (size_t)n;
    }
}

static void welcome(int listener)
{
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct conn *c = calloc(1, sizeof *c);
        if (!c)
            die("no memory for", "a connection");
        c->fd = fd;
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
        say(c, "+OK\r\n");
        if (flush(c) < 0)
            drop(c);
    }
}

int main(int argc, char **argv)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    hcreate(65536);
    for (int i = 1; i < argc; i++) {
        struct expected *set = malloc(sizeof *set);
        *set = load_expected(argv[i]);
        for (size_t k = 0; k < set->user_count; k++) {
            struct place *p = malloc(sizeof *p);
            *p = (struct place){set, &set->users[k]};
            hsearch((ENTRY){set->users[k].name, p}, ENTER);
        }
    }
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (bind(listener, (struct sockaddr *)&at, size) < 0 || listen(listener, 4096) < 0)
        die("cannot listen", strerror(errno));
    getsockname(listener, (struct sockaddr *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
    for (;;) {
        int n = epoll_wait(ep, events, 256, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr);
            else
                welcome(listener);
        }
    }
}
