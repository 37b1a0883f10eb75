/* The load generator: many POP3 sessions at once from one thread, every octet compared.
 *
 * Lives here: sockets, TLS, the clock and the schedule.  What a right answer is
 * stands in replies.h.  The last line on stdout is a JSON object; complaints go
 * to stderr.  Run by benchmarks/load.py, which knows the options.
 */
#define _GNU_SOURCE
#include "replies.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define BUFFER (256 * 1024)
#define PATIENCE 60 /* seconds without any octet until the run is given up */
#define COMPLAINTS 10

struct conn {
    int fd, slot, want_write, held;
    SSL *tls;
    size_t user;
    uint64_t started;
    char *out;
    size_t out_length, out_sent, out_room;
    struct replies replies;
};

static struct {
    int port, pipelined, tls;
    size_t connections, first_user, users;
    uint64_t sessions;
    double seconds, pace;
    const char *script, *latencies, *learn, *known;
} opt = {.connections = 1, .script = "gupSQ"};

static struct expected expected;
static struct listing *listings;
static SSL_CTX *tls_context;
static int ep;
static char buffer[BUFFER];
static struct conn **conns; /* all that are open, for the release of held ones */
static size_t open_count, active, held;
static size_t *free_users, free_head, free_count;
static uint64_t started, finished, failed, unclean, octets, begun_at, ended_at, deadline;
static uint64_t *latency;
static size_t latency_room;

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void done_with(struct conn *c)
{
    if (c->tls)
        SSL_free(c->tls);
    close(c->fd);
    conns[c->slot] = conns[--open_count];
    conns[c->slot]->slot = c->slot;
    free_users[(free_head + free_count++) % opt.users] = c->user;
    if (c->held)
        held--;
    else
        active--;
    free(c->replies.learned);
    free(c->out);
    free(c);
    ended_at = now();
}

static void fail(struct conn *c, const char *why)
{
    if (failed++ < COMPLAINTS)
        fprintf(stderr, "%s\n", why);
    done_with(c);
}

static void watch(struct conn *c, int want_write)
{
    if (c->want_write == want_write)
        return;
    c->want_write = want_write;
    struct epoll_event ev = {.events = EPOLLIN | (want_write ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
}

/* Write what is due; what does not fit waits for the socket. */
static void flush(struct conn *c)
{
    while (c->out_sent < c->out_length) {
        const char *at = c->out + c->out_sent;
        size_t n = c->out_length - c->out_sent;
        ssize_t k = c->tls ? SSL_write(c->tls, at, (int)n) : send(c->fd, at, n, MSG_NOSIGNAL);
        if (k <= 0)
            break; /* full, or broken: then reading says so */
        c->out_sent += (size_t)k;
    }
    int rest = c->out_sent < c->out_length;
    if (!rest)
        c->out_sent = c->out_length = 0;
    watch(c, rest);
}

static void queue_command(struct conn *c, const struct replies *at)
{
    if (c->out_room - c->out_length < 160) {
        c->out_room = c->out_room ? c->out_room * 2 : 256;
        c->out = realloc(c->out, c->out_room);
        if (!c->out)
            die("no memory for", "commands");
    }
    c->out_length += command(at, c->out + c->out_length, c->out_room - c->out_length);
}

static void start_session(void)
{
    struct conn *c = calloc(1, sizeof *c);
    int one = 1;
    if (!c)
        die("no memory for", "a connection");
    c->user = free_users[free_head];
    free_head = (free_head + 1) % opt.users;
    free_count--;
    c->replies = (struct replies){.expected = &expected,
                                  .user = &expected.users[c->user],
                                  .listing = &listings[c->user],
                                  .script = opt.script,
                                  .number = 1,
                                  .mode = STATUS};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)opt.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->started = now();
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        die("cannot make a socket", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    /* Each user from an address of his own, as in life: servers limit what one address may do. */
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(0x7f010000u + (uint32_t)(c->user & 0xffff))};
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0)
        die("cannot bind to an address of 127.0.0.0/8", strerror(errno));
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        die("cannot connect", strerror(errno));
    c->slot = (int)open_count;
    conns[open_count++] = c;
    active++;
    started++;
    if (tls_context) {
        c->tls = SSL_new(tls_context);
        SSL_set_fd(c->tls, c->fd);
        SSL_set_connect_state(c->tls);
        c->want_write = 1;
    }
    struct epoll_event ev = {.events = EPOLLIN | (c->want_write ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev);
}

/* A reply is complete: what does the client do now? */
static void reply_done(struct conn *c)
{
    struct replies *r = &c->replies;
    char was = *r->script;
    advance(r);
    if (was == 'Q') {
        if (finished == latency_room) {
            latency_room = latency_room ? latency_room * 2 : 65536;
            latency = realloc(latency, latency_room * sizeof *latency);
            if (!latency)
                die("no memory for", "latencies");
        }
        latency[finished++] = now() - c->started;
    } else if (*r->script == 'H') {
        c->held = 1;
        active--;
        if (++held == opt.sessions) {
            struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
            epoll_ctl(ep, EPOLL_CTL_ADD, 0, &ev);
            puts("held");
            fflush(stdout);
        }
    } else if (!opt.pipelined || was == 'g' || was == 'u') {
        queue_command(c, r);
        flush(c);
    } else if (was == 'p') {
        /* All the rest in one write, as far as the socket takes it. */
        struct replies ahead = *r;
        for (; ahead.mode != OVER; advance(&ahead))
            queue_command(c, &ahead);
        flush(c);
    }
}

static void release_held(void)
{
    epoll_ctl(ep, EPOLL_CTL_DEL, 0, NULL);
    for (size_t i = 0; i < open_count; i++) {
        struct conn *c = conns[i];
        c->held = 0;
        held--;
        active++;
        advance(&c->replies);
        queue_command(c, &c->replies);
        flush(c);
    }
}

/* The connection ended: rightly after QUIT, wrongly anywhere else. */
static void ended(struct conn *c, int clean, const char *how)
{
    char why[160];
    if (c->replies.mode == OVER) {
        if (!clean)
            unclean++;
        done_with(c);
        return;
    }
    snprintf(why, sizeof why, "%s: connection %s before the reply to %c was complete", c->replies.user->name,
             how, *c->replies.script);
    fail(c, why);
}

static void serve(struct conn *c, uint32_t events)
{
    if (c->want_write && (events & EPOLLOUT) && c->out_length)
        flush(c);
    for (;;) {
        ssize_t n;
        if (c->tls) {
            ERR_clear_error();
            n = SSL_read(c->tls, buffer, BUFFER);
            if (n <= 0) {
                int e = SSL_get_error(c->tls, (int)n);
                if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
                    watch(c, e == SSL_ERROR_WANT_WRITE || c->out_sent < c->out_length);
                else
                    ended(c, e == SSL_ERROR_ZERO_RETURN, "closed");
                return;
            }
        } else {
            n = recv(c->fd, buffer, BUFFER, 0);
            if (n < 0 && errno == EAGAIN)
                return;
            if (n <= 0) {
                ended(c, n == 0, n ? strerror(errno) : "closed");
                return;
            }
        }
        octets += (uint64_t)n;
        size_t at = 0, used = 0;
        while (at < (size_t)n) {
            enum progress p = take(&c->replies, buffer + at, (size_t)n - at, &used);
            if (p == WRONG) {
                fail(c, c->replies.why);
                return;
            }
            at += used;
            if (p == REPLY_DONE) {
                if (!opt.pipelined && at < (size_t)n) {
                    wrong(&c->replies, "octets that nobody asked for", "");
                    fail(c, c->replies.why);
                    return;
                }
                reply_done(c);
            }
        }
        if (!c->tls)
            return; /* level-triggered: the rest is told again */
    }
}

/* Whether there are sessions yet to begin. */
static int more(void)
{
    return started < opt.sessions && failed < 100 &&
           (started < opt.connections || (opt.pace ? now() : ended_at) < deadline);
}

/* Whether the next one may begin: at any time, or at so many a second. */
static int due(void)
{
    return !opt.pace || (double)started <= (double)(now() - begun_at) / 1e9 * opt.pace;
}

static void run(void)
{
    struct epoll_event events[256];
    begun_at = ended_at = now();
    uint64_t heard_at = begun_at;
    deadline = opt.seconds ? begun_at + (uint64_t)(opt.seconds * 1e9) : UINT64_MAX;
    for (;;) {
        while (active < opt.connections && free_count && more() && due())
            start_session();
        if (!active && (!held || failed) && !(opt.pace && more()))
            return;
        int n = epoll_wait(ep, events, 256, opt.pace ? 1 : 1000);
        if (n > 0 || !active)
            heard_at = now();
        if (now() - heard_at > PATIENCE * 1000000000ull) {
            fprintf(stderr, "no octet for %d seconds\n", PATIENCE);
            failed += active;
            return;
        }
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr, events[i].events);
            else
                release_held();
        }
    }
}

static void read_listings(void)
{
    FILE *f = fopen(opt.known, "rb");
    uint64_t n;
    for (size_t i = 0; f && i < expected.user_count && fread(&n, sizeof n, 1, f) == 1; i++) {
        if (!n)
            continue;
        listings[i] = (struct listing){malloc(n), n};
        if (!listings[i].text || fread(listings[i].text, 1, n, f) != n)
            die("cannot read", opt.known);
    }
    if (f)
        fclose(f);
}

static void write_file(const char *path, int want_listings)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        die("cannot write", path);
    for (size_t i = 0; want_listings && i < expected.user_count; i++) {
        uint64_t n = listings[i].length;
        fwrite(&n, sizeof n, 1, f);
        fwrite(listings[i].text ? listings[i].text : "", 1, n, f);
    }
    if (!want_listings && finished)
        fwrite(latency, sizeof *latency, finished, f);
    if (fclose(f))
        die("cannot write", path);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", 1, 0, 'p'},     {"expected", 1, 0, 'e'},   {"script", 1, 0, 's'},
        {"pipelined", 0, 0, 'P'}, {"tls", 0, 0, 't'},        {"connections", 1, 0, 'c'},
        {"sessions", 1, 0, 'n'}, {"seconds", 1, 0, 'd'},    {"first-user", 1, 0, 'f'},
        {"users", 1, 0, 'u'},    {"pace", 1, 0, 'a'},       {"latencies", 1, 0, 'l'},  {"learn", 1, 0, 'L'},
        {"known", 1, 0, 'k'},    {0, 0, 0, 0}};
    int o;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (o) {
        case 'p': opt.port = atoi(optarg); break;
        case 'e': expected = load_expected(optarg); break;
        case 's': opt.script = optarg; break;
        case 'P': opt.pipelined = 1; break;
        case 't': opt.tls = 1; break;
        case 'c': opt.connections = strtoul(optarg, NULL, 10); break;
        case 'n': opt.sessions = strtoull(optarg, NULL, 10); break;
        case 'd': opt.seconds = atof(optarg); break;
        case 'a': opt.pace = atof(optarg); break;
        case 'f': opt.first_user = strtoul(optarg, NULL, 10); break;
        case 'u': opt.users = strtoul(optarg, NULL, 10); break;
        case 'l': opt.latencies = optarg; break;
        case 'L': opt.learn = optarg; break;
        case 'k': opt.known = optarg; break;
        default: return 2;
        }
    }
    if (!expected.user_count || !opt.port)
        die("needed", "--port and --expected");
    if (!opt.users || opt.first_user + opt.users > expected.user_count)
        opt.users = expected.user_count - opt.first_user;
    if (!opt.sessions)
        opt.sessions = UINT64_MAX;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    listings = calloc(expected.user_count, sizeof *listings);
    free_users = calloc(opt.users, sizeof *free_users);
    conns = calloc(opt.users + 1, sizeof *conns);
    if (!listings || !free_users || !conns)
        die("no memory for", "the users");
    for (; free_count < opt.users; free_count++)
        free_users[free_count] = opt.first_user + free_count;
    if (opt.known)
        read_listings();
    if (opt.tls) {
        tls_context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_session_cache_mode(tls_context, SSL_SESS_CACHE_OFF);
    }
    ep = epoll_create1(EPOLL_CLOEXEC);
    run();
    if (opt.latencies)
        write_file(opt.latencies, 0);
    if (opt.learn)
        write_file(opt.learn, 1);
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    printf("{\"sessions\": %lu, \"failures\": %lu, \"unclean\": %lu, \"octets\": %lu, \"seconds\": %.6f, "
           "\"cpu\": %.6f}\n",
           finished, failed, unclean, octets, (double)(ended_at - begun_at) / 1e9,
           (double)use.ru_utime.tv_sec + (double)use.ru_utime.tv_usec / 1e6 + (double)use.ru_stime.tv_sec +
               (double)use.ru_stime.tv_usec / 1e6);
    return failed ? 1 : 0;
}
