/* One connection's view of the replies that are due, and whether they are right.
 *
 * Lives here: parsing and comparing what the server sends.  Knows no socket,
 * no TLS and no clock; pop3load.c feeds it octets.
 *
 * A session is a script of letters: g greeting, u USER, p PASS, S STAT, T LIST,
 * U UIDL, R RETR of every message, H hold the connection open, Q QUIT.
 */
#ifndef REPLIES_H
#define REPLIES_H

#include "expected.h"

#include <ctype.h>

/* A unique-id listing of one user as the server first gave it: it may never change. */
struct listing {
    char *text;
    size_t length;
};

enum mode { STATUS, BODY, LEARN, OVER };
enum progress { GO_ON, REPLY_DONE, WRONG };

struct replies {
    const struct expected *expected;
    const struct user *user;
    struct listing *listing;
    const char *script; /* the letter whose reply is due */
    uint64_t number;    /* of the message, 1-based, while the letter is R */
    enum mode mode;
    char line[513]; /* a first line has at most 512 octets (RFC 2449 section 4) */
    size_t line_length;
    const char *want;
    size_t left;
    char *learned;
    size_t learned_length, learned_room, learned_line;
    char why[512];
};

static enum progress wrong(struct replies *r, const char *format, const char *detail)
{
    r->line[strcspn(r->line, "\r\n")] = 0; /* often the detail */
    int n = snprintf(r->why, sizeof r->why, "%s, reply to %c", r->user->name, *r->script);
    if (*r->script == 'R')
        n += snprintf(r->why + n, sizeof r->why - (size_t)n, " %lu", r->number);
    snprintf(r->why + n, sizeof r->why - (size_t)n, ": %s %.300s", format, detail);
    return WRONG;
}

/* Move to the next command of the script. */
static void advance(struct replies *r)
{
    if (*r->script == 'R' && r->number < r->user->count) {
        r->number++;
    } else {
        do
            r->script++;
        while (*r->script == 'R' && !r->user->count);
        r->number = 1;
    }
    r->mode = *r->script ? STATUS : OVER;
    r->line_length = 0;
}

/* The command for a place in the script; returns its length. */
static size_t command(const struct replies *r, char *out, size_t room)
{
    switch (*r->script) {
    case 'u':
        return (size_t)snprintf(out, room, "USER %s\r\n", r->user->name);
    case 'p':
        return (size_t)snprintf(out, room, "PASS %s\r\n", r->user->password);
    case 'S':
        return (size_t)snprintf(out, room, "STAT\r\n");
    case 'T':
        return (size_t)snprintf(out, room, "LIST\r\n");
    case 'U':
        return (size_t)snprintf(out, room, "UIDL\r\n");
    case 'R':
        return (size_t)snprintf(out, room, "RETR %lu\r\n", r->number);
    case 'Q':
        return (size_t)snprintf(out, room, "QUIT\r\n");
    }
    return 0;
}

static int by_uid(const void *a, const void *b)
{
    return strcasecmp(*(char *const *)a, *(char *const *)b);
}

/* A listing seen for the first time: numbers in order, each uid valid and unlike the others. */
static enum progress check_listing(struct replies *r)
{
    char *copy = malloc(r->learned_length + 1), **uids = calloc(r->user->count + 1, sizeof *uids);
    if (!copy || !uids)
        die("no memory for", "a listing");
    memcpy(copy, r->learned, r->learned_length);
    copy[r->learned_length] = 0;
    uint64_t n = 0;
    const char *fault = NULL;
    char *at = copy, *end;
    while (!fault && strcmp(at, ".\r\n")) {
        end = strstr(at, "\r\n");
        if (!end || n == r->user->count) {
            fault = "a wrong number of lines in the unique-id listing";
            break;
        }
        *end = 0;
        char *uid;
        if (strtoul(at, &uid, 10) != ++n || *uid != ' ' || !isdigit((unsigned char)*at))
            fault = "not the next message number";
        size_t length = strlen(uid + 1);
        if (length < 1 || length > 70)
            fault = "a unique-id is not 1 to 70 octets";
        for (char *c = uid + 1; *c; c++)
            if (*c < 0x21 || *c > 0x7e)
                fault = "a unique-id with an octet outside 0x21 to 0x7E";
        uids[n - 1] = uid + 1;
        at = end + 2;
    }
    if (!fault && n != r->user->count)
        fault = "a unique-id listing of the wrong length";
    if (!fault) {
        qsort(uids, n, sizeof *uids, by_uid);
        for (uint64_t i = 1; i < n; i++)
            if (!strcasecmp(uids[i - 1], uids[i]))
                fault = "a unique-id that is there twice";
    }
    free(copy);
    free(uids);
    if (fault)
        return wrong(r, fault, "");
    r->listing->text = r->learned;
    r->listing->length = r->learned_length;
    r->learned = NULL;
    return REPLY_DONE;
}

static enum progress status_line(struct replies *r)
{
    char text[96];
    r->line[r->line_length] = 0;
    if (r->line_length < 5 || strcmp(r->line + r->line_length - 2, "\r\n"))
        return wrong(r, "not a status line:", r->line);
    if (strncmp(r->line, "+OK", 3) || (r->line[3] != ' ' && r->line[3] != '\r'))
        return wrong(r, "not +OK:", r->line);
    r->mode = BODY;
    switch (*r->script) {
    case 'S':
        snprintf(text, sizeof text, "+OK %lu %lu", r->user->count, r->user->octets);
        size_t n = strlen(text);
        if (strncmp(r->line, text, n) || (r->line[n] != ' ' && r->line[n] != '\r'))
            return wrong(r, "wrong count or octets:", r->line);
        return REPLY_DONE;
    case 'T':
        r->want = r->expected->wire + r->user->list_offset;
        r->left = r->user->list_length;
        return GO_ON;
    case 'U':
        r->want = r->listing->text;
        r->left = r->listing->length;
        if (!r->want) {
            r->mode = LEARN;
            r->learned_length = r->learned_line = 0;
        }
        return GO_ON;
    case 'R':
        r->want = r->expected->wire + r->expected->messages[r->user->first + r->number - 1].offset;
        r->left = r->expected->messages[r->user->first + r->number - 1].length;
        return GO_ON;
    }
    return REPLY_DONE;
}

static enum progress differs(struct replies *r, const char *got, size_t n)
{
    char text[160];
    size_t i = 0;
    while (i < n && got[i] == r->want[i])
        i++;
    snprintf(text, sizeof text, "0x%02x instead of 0x%02x, %zu octets before the end", (unsigned char)got[i],
             (unsigned char)r->want[i], r->left - i);
    return wrong(r, "wrong octet:", text);
}

/* Take octets; *used says how many.  REPLY_DONE stops behind the last octet of a reply. */
static enum progress take(struct replies *r, const char *data, size_t n, size_t *used)
{
    size_t at = 0;
    enum progress p = GO_ON;
    while (at < n && p == GO_ON) {
        if (r->mode == BODY) {
            size_t k = n - at < r->left ? n - at : r->left;
            if (memcmp(r->want, data + at, k))
                return differs(r, data + at, k);
            at += k;
            r->want += k;
            r->left -= k;
            if (!r->left)
                p = REPLY_DONE;
        } else if (r->mode == OVER) {
            return wrong(r, "octets behind the last reply", "");
        } else {
            const char *end = memchr(data + at, '\n', n - at);
            size_t k = end ? (size_t)(end - data) + 1 - at : n - at;
            if (r->mode == STATUS) {
                if (r->line_length + k > 512)
                    return wrong(r, "a first line of more than 512 octets", "");
                memcpy(r->line + r->line_length, data + at, k);
                r->line_length += k;
                at += k;
                if (end)
                    p = status_line(r);
            } else {
                if (r->learned_length + k > r->learned_room) {
                    r->learned_room = (r->learned_length + k) * 2;
                    r->learned = realloc(r->learned, r->learned_room);
                    if (!r->learned)
                        die("no memory for", "a listing");
                }
                memcpy(r->learned + r->learned_length, data + at, k);
                r->learned_length += k;
                at += k;
                if (end) {
                    if (r->learned_length - r->learned_line == 3 &&
                        !memcmp(r->learned + r->learned_line, ".\r\n", 3))
                        p = check_listing(r);
                    r->learned_line = r->learned_length;
                }
            }
        }
    }
    *used = at;
    return p;
}

#endif
