"""Every rule that is looked at, in the order in which it is: one table, which the documents are made of, too.

``python -m pop3toy.conformance.table > docs/checks.rst``.  The section is that of the RFC's
sentence, and so is the level; what RFC 1939 says without MUST or SHOULD, as a matter of course, counts as a
MUST, and what a section implies as a SHOULD.  ``docs/rfc.rst`` says of the same sections how this project's own
server keeps them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .checks import capabilities, clients, deletion, lines, listings, login, messages, sasl, tls, utf8
from .rules import Level, Rule

__all__ = ["RULES", "TITLES", "page"]

MUST, SHOULD, MAY, CLIENT = Level.MUST, Level.SHOULD, Level.MAY, Level.CLIENT

#: What the RFCs are about; 0 is what clients ask.
TITLES = {
    1939: "POP3",
    2449: "CAPA and response codes",
    3206: "SYS and AUTH",
    2595: "STLS",
    8314: "TLS for mail access",
    5034: "AUTH",
    6856: "UTF8 and LANG",
    0: "What mail programs stumble over",
}

# fmt: off
RULES: tuple[Rule, ...] = (
    # -- lines, replies, states
    Rule("greeting", 1939, "4", MUST, "A client is greeted by one line, which is a yes.", lines.greeting),
    Rule("login", 1939, "4", MUST, "Name and password let a user in.", login.login),
    Rule("crlf", 1939, "3", MUST, "Replies end with CRLF, and no CR or LF stands alone.", lines.crlf),
    Rule("status", 1939, "3", MUST, "A reply begins with +OK or -ERR, in capitals.", lines.status_words),
    Rule("reply-length", 1939, "3", MUST, "A reply's line has at most 512 octets with CRLF.", lines.reply_length),
    Rule("reply-ascii", 2449, "3", MUST, "A reply's line is printable ASCII.", lines.reply_ascii),
    Rule("case", 1939, "3", MUST, "Keywords are known in any case.", lines.keyword_case),
    Rule("unknown", 1939, "3", MUST, "An unknown command is refused, and the session goes on.", lines.unknown_command),
    Rule("empty-line", 1939, "3", MUST, "An empty line is refused, and the session goes on.", lines.empty_line),
    Rule("nul", 1939, "3", MUST, "A command with a NUL in it is refused, and the session goes on.", lines.nul),
    Rule("eight-bit", 1939, "3", MUST, "A keyword that is not ASCII is refused, and the session goes on.", lines.eight_bit),
    Rule("arguments", 1939, "3", MUST, "What is no number of a message is refused, and so is a missing one.", lines.invalid_arguments),
    Rule("before-login", 1939, "3", MUST, "Commands of TRANSACTION are refused before login.", lines.wrong_state_before),
    Rule("after-login", 1939, "3", MUST, "USER and PASS are refused after login, and change nothing.", lines.wrong_state_after),
    Rule("longest-command", 2449, "4", MUST, "A command of 255 octets is answered as any other is.", lines.longest_command),
    Rule("long-line", 1939, "3", SHOULD, "A line that is too long is refused once; no part of it is a command.", lines.long_line),
    Rule("octets-one-by-one", 1939, "3", MUST, "A command is a line, whatever packets it comes in.", lines.octet_by_octet),
    Rule("bare-lf", 1939, "3", MAY, "A bare LF ends a command or spoils it, and is not passed over.", lines.bare_line_feed),
    Rule("mistakes", 1939, "3", SHOULD, "Three mistakes do not end a session.", lines.errors_stay),
    Rule("idle", 1939, "3", MUST, "A session may be silent for ten minutes.", lines.idle),
    Rule("quit-before-login", 1939, "4", MUST, "QUIT before login is a yes, and ends the connection.", lines.quit_before),
    Rule("quit", 1939, "6", MUST, "QUIT is a yes, and ends the connection.", lines.quit_after),
    # -- login
    Rule("user-tells-nothing", 1939, "13", SHOULD, "USER does not tell whether a name exists.", login.user_tells_nothing),
    Rule("user-argument", 1939, "3", MUST, "USER without a name is refused, PASS without a password as well.", login.missing_arguments),
    Rule("pass-alone", 1939, "7", MUST, "PASS without USER is refused.", login.pass_without_user),
    Rule("pass-behind-user", 1939, "7", SHOULD, "PASS counts directly behind USER, and not behind something else.", login.user_then_something),
    Rule("wrong-password", 1939, "7", MUST, "A wrong password is refused, and lets nobody in.", login.wrong_password),
    Rule("another-try", 1939, "4", SHOULD, "Behind a wrong password the right one counts.", login.another_try),
    Rule("pass-with-blanks", 1939, "7", MUST, "Blanks in PASS belong to the password.", login.pass_takes_the_line),
    Rule("lock", 1939, "4", SHOULD, "A second session is not let into a mailbox in use.", login.lock),
    Rule("lock-freed", 1939, "6", MUST, "A session that was dropped frees the mailbox.", login.lock_freed),
    Rule("apop-timestamp", 1939, "7", MUST, "APOP's timestamp is a message-id, another one in each greeting.", login.apop_timestamp),
    Rule("apop-wrong", 1939, "7", MUST, "APOP with a wrong digest is refused.", login.apop_wrong),
    # -- listings
    Rule("stat", 1939, "5", MUST, "STAT is two numbers, with one blank before each.", listings.stat_form),
    Rule("stat-sum", 1939, "5", MUST, "STAT's numbers are those of LIST.", listings.stat_sum),
    Rule("list", 1939, "5", MUST, "A line of LIST is a number, a blank and octets.", listings.list_form),
    Rule("list-plain", 1939, "5", SHOULD, "Nothing stands behind the octets in a line of LIST.", listings.list_plain),
    Rule("numbers", 1939, "4", MUST, "Messages have the numbers 1, 2, 3 and so on.", listings.list_numbers),
    Rule("list-one", 1939, "5", MUST, "LIST of one message says what LIST says of it.", listings.list_one),
    Rule("no-such-message", 1939, "5", MUST, "A number that no message has is refused.", listings.no_such_message),
    Rule("noop", 1939, "5", MUST, "NOOP is a yes.", listings.noop),
    Rule("rset", 1939, "5", MUST, "RSET is a yes, also where nothing is marked.", listings.rset),
    Rule("uidl", 1939, "7", MUST, "A unique-id is 1 to 70 octets of 0x21 to 0x7E.", listings.uidl_form),
    Rule("uidl-unique", 1939, "7", MUST, "No two messages have the same unique-id.", listings.uidl_unique),
    Rule("uidl-numbers", 1939, "7", MUST, "UIDL has the messages that LIST has.", listings.uidl_numbers),
    Rule("uidl-one", 1939, "7", MUST, "UIDL of one message says what UIDL says of it.", listings.uidl_one),
    Rule("uidl-persistent", 1939, "7", MUST, "Unique-ids are the same in the next session.", listings.uidl_persistent),
    # -- messages
    Rule("octets", 1939, "11", MUST, "LIST says the octets that RETR sends, to the last one.", messages.octets_exact),
    Rule("line-ends", 1939, "11", MUST, "Lines of a message end with CRLF.", messages.line_ends),
    Rule("dots", 1939, "3", MUST, "A line that begins with a dot has one more.", messages.dots),
    Rule("retr-again", 1939, "5", MUST, "A message is the same each time.", messages.same_again),
    Rule("message-whole", 1939, "5", MUST, "A message is fetched as it was brought.", messages.as_brought),
    Rule("top-0", 1939, "7", MUST, "TOP with 0 is header and empty line, and nothing more.", messages.top_nothing),
    Rule("top", 1939, "7", MUST, "TOP with a number has as many lines of the body.", messages.top_lines),
    Rule("top-whole", 1939, "7", MUST, "TOP with more lines than there are is the whole message.", messages.top_more),
    Rule("top-arguments", 1939, "7", MUST, "TOP without lines, with negative ones, or of no message is refused.", messages.top_arguments),
    # -- capabilities
    Rule("capa", 2449, "5", MUST, "CAPA works before and after login, if it does at all.", capabilities.both_states),
    Rule("capa-lines", 2449, "5", MUST, "A capability is printable words with one blank between them.", capabilities.syntax),
    Rule("capa-kept", 2449, "5", MUST, "What is announced before login is announced after it.", capabilities.kept_after_login),
    Rule("capa-arguments", 2449, "5", MUST, "Capabilities have arguments where they should, and nowhere else.", capabilities.arguments),
    Rule("capa-top", 2449, "6.1", MUST, "TOP works, if it is announced.", capabilities.top_works),
    Rule("capa-user", 2449, "6.2", MUST, "USER works, if it is announced.", capabilities.user_works),
    Rule("capa-uidl", 2449, "6.8", MUST, "UIDL works, if it is announced.", capabilities.uidl_works),
    Rule("login-delay", 2449, "6.5", MUST, "LOGIN-DELAY has seconds.", capabilities.login_delay),
    Rule("pipelining", 2449, "6.6", MUST, "Commands in one packet are answered in order, if PIPELINING is announced.", capabilities.pipelining),
    Rule("pipelined-login", 2449, "6.6", MUST, "Those behind a password are, too, and none is lost.", capabilities.pipelining_login),
    Rule("expire", 2449, "6.7", MUST, "EXPIRE has days, or NEVER.", capabilities.expire),
    Rule("codes", 2449, "8", MUST, "A response code is in brackets, behind -ERR, and a blank follows it.", capabilities.code_form),
    Rule("codes-known", 2449, "8", SHOULD, "Response codes are registered ones.", capabilities.known_codes),
    Rule("codes-announced", 2449, "6.4", MUST, "Who sends response codes announces RESP-CODES.", capabilities.codes_announced),
    Rule("in-use", 2449, "8.1.2", SHOULD, "A mailbox in use is [IN-USE].", login.lock_code),
    Rule("auth-code", 3206, "6", MUST, "A wrong password is [AUTH], if AUTH-RESP-CODE is announced.", login.auth_code),
    # -- SASL
    Rule("sasl-names", 5034, "3", MUST, "Names of mechanisms are up to 20 capitals, digits, - and _.", sasl.mechanism_names),
    Rule("sasl-unknown", 5034, "3", MUST, "A mechanism that is not there is refused.", sasl.unknown_mechanism),
    Rule("sasl-works", 5034, "3", MUST, "Each mechanism that is announced can be begun.", sasl.announced_work),
    Rule("sasl-initial", 5034, "4", MUST, "AUTH PLAIN takes an initial response.", sasl.initial_response),
    Rule("sasl-challenge", 5034, "4", MUST, "AUTH PLAIN without an initial response is answered by plus and blank.", sasl.empty_challenge),
    Rule("sasl-base64", 5034, "4", MUST, "Challenges are base64.", sasl.challenge_base64),
    Rule("sasl-cancel", 5034, "4", MUST, "* cancels AUTH: it is refused, and the client may go on.", sasl.cancel),
    Rule("sasl-bad-base64", 5034, "4", MUST, "A response that is no base64 is refused, and the client may go on.", sasl.bad_base64),
    Rule("sasl-empty", 5034, "4", MUST, "= is an initial response without octets.", sasl.empty_initial),
    Rule("sasl-long", 5034, "4", SHOULD, "A response may have 12,288 octets.", sasl.long_response),
    Rule("sasl-after-login", 5034, "3", MUST, "AUTH is refused after login.", sasl.not_after_login),
    Rule("sasl-plain", 5034, "7", SHOULD, "Within TLS there is PLAIN.", sasl.plain_within_tls),
    # -- TLS
    Rule("tls", 8314, "3", SHOULD, "There is TLS.", tls.offered),
    Rule("certificate", 8314, "4.4", MUST, "The certificate is valid, trusted, and for this name.", tls.certificate),
    Rule("tls-version", 8314, "4.1", MUST, "TLS 1.2 or later is agreed on.", tls.version),
    Rule("tls-old", 8314, "4.1", SHOULD, "TLS 1.1 and older are refused.", tls.old_versions),
    Rule("clear-text", 8314, "4.1", SHOULD, "Where others listen, no password is asked for in the clear.", tls.clear_text_refused),
    Rule("stls", 2595, "4", MUST, "STLS begins TLS right behind its +OK, before login.", tls.stls_works),
    Rule("stls-injection", 2595, "4", MUST, "What came in the clear behind STLS is not answered within TLS.", tls.injection),
    Rule("stls-forgets", 2595, "4", SHOULD, "What was said in the clear does not count within TLS.", tls.forgotten),
    Rule("stls-capa", 2595, "4", MUST, "CAPA works again within TLS.", tls.capa_again),
    Rule("stls-within", 2595, "4", MAY, "STLS is refused within TLS.", tls.not_within),
    Rule("stls-announced", 2595, "4", SHOULD, "STLS is not announced within TLS.", tls.not_announced_within),
    Rule("stls-after-login", 2595, "4", MUST, "STLS is refused after login.", tls.not_after_login),
    # -- languages
    Rule("utf8", 6856, "2", MUST, "UTF8 is a yes before login, if it is announced.", utf8.utf8_works),
    Rule("utf8-after-login", 6856, "2", MUST, "UTF8 is refused after login.", utf8.utf8_not_after_login),
    Rule("utf8-argument", 6856, "2.1", MUST, "UTF8 stands alone in CAPA, or with USER.", utf8.utf8_argument),
    Rule("lang-list", 6856, "3", MUST, "LANG lists tags of languages, each with a description.", utf8.lang_list),
    Rule("lang-default", 6856, "3", MUST, "LANG with * takes the server's own.", utf8.lang_default),
    Rule("lang-unknown", 6856, "3", MUST, "A language that the server does not speak is refused.", utf8.lang_unknown),
    # -- what clients ask
    Rule("capa-early", 0, "K-9", CLIENT, "TOP and UIDL stand in CAPA before login, if they work.", clients.capa_top_uidl),
    Rule("capa-short", 0, "fetchmail", CLIENT, "A line of CAPA has at most 64 octets.", clients.capa_short),
    Rule("auth-blank", 0, "Outlook", CLIENT, "AUTH with a blank and nothing behind it is answered.", clients.auth_blank),
    Rule("utf8-polite", 0, "Outlook", CLIENT, "UTF8 after login is answered.", clients.utf8_polite),
    Rule("no-plus", 0, "neomutt, GNU SASL", CLIENT, "No mechanism is a -PLUS one.", clients.channel_binding),
    Rule("apop", 0, "fetchmail", CLIENT, "APOP works, if the greeting has a timestamp.", clients.apop),
    Rule("lock-word", 0, "fetchmail", CLIENT, "A mailbox in use is refused with [IN-USE], or the word lock.", clients.lock_word),
    Rule("hasty-quit", 0, "PHPMailer, YAM", CLIENT, "Who says QUIT and hangs up can be back at once.", clients.hasty_quit),
    Rule("half-close", 0, "scripts, netcat", CLIENT, "What came before the end of input is answered.", clients.half_close),
    Rule("quit-time", 0, "Thunderbird", CLIENT, "QUIT is answered within three seconds.", clients.quit_time),
    Rule("close-notify", 0, "poplib", CLIENT, "TLS ends with close_notify.", clients.close_notify),
    Rule("last", 0, "Netscape's heirs", CLIENT, "XTND is refused, LAST refused or answered.", clients.last),
    Rule("order", 0, "Gmail, Outlook", CLIENT, "Messages have the order that they had in the session before.", clients.order),
    Rule("uidl-case", 0, "old fetchmail", CLIENT, "No two unique-ids differ in case alone.", clients.uid_case),
    Rule("size-32", 0, "K-9", CLIENT, "No message has 2 GiB or more.", clients.large_sizes),
    Rule("blank-line", 0, "Outlook Express", CLIENT, "There is an empty line behind every header.", clients.blank_line),
    Rule("long-lines", 0, "poplib", CLIENT, "A line of a message has at most 2,048 octets.", clients.long_lines),
    Rule("no-nul", 0, "Outlook", CLIENT, "There is no NUL in a message.", clients.nuls),
    # -- what removes messages, last
    Rule("dele", 1939, "5", MUST, "DELE is a yes.", deletion.dele),
    Rule("dele-again", 1939, "5", MUST, "A marked message is there neither for RETR nor for LIST nor for DELE.", deletion.not_again),
    Rule("dele-listings", 1939, "5", MUST, "STAT, LIST and UIDL leave a marked message out.", deletion.gone_from_listings),
    Rule("dele-numbers", 1939, "4", MUST, "When a message is marked, the others keep their numbers.", deletion.numbers_stay),
    Rule("rset-unmarks", 1939, "5", MUST, "RSET takes marks back.", deletion.rset_unmarks),
    Rule("dropped", 1939, "6", MUST, "A session that ends without QUIT removes nothing.", deletion.dropped),
    Rule("new-mail", 1939, "4", MUST, "Mail that comes during a session changes nothing in it.", deletion.new_mail_later),
    Rule("quit-removes", 1939, "6", MUST, "QUIT removes what was marked, and nothing else.", deletion.quit_removes),
    Rule("uidl-once", 1939, "7", SHOULD, "A unique-id is not used again for another message.", deletion.uid_not_reused),
)
# fmt: on


def page(rules: Iterable[Rule] = RULES) -> str:
    """The page of the documents."""
    return "\n".join(_lines(list(rules))) + "\n"


def _lines(rules: list[Rule]) -> Iterator[str]:
    yield from (
        "What ``pop3toy check`` looks at",
        "===============================",
        "",
        "Made from the code: ``python -m pop3toy.conformance.table > docs/checks.rst``. `testing.rst <testing.rst>`_",
        "tells how it is used, `rfc.rst <rfc.rst>`_ how this project's own server keeps what the RFCs ask,",
        "sentence by sentence.",
    )
    for rfc, title in TITLES.items():
        heading = f"RFC {rfc}: {title}" if rfc else title
        yield from ("", heading, "-" * len(heading), "", ".. list-table::", "   :header-rows: 1")
        yield from ("   :widths: 22 12 10 56", "", "   * - Check")
        yield from (f"     - {one}" for one in ("Section" if rfc else "Client", "Level", "What it asks"))
        for rule in rules:
            if rule.rfc == rfc:
                sentence = rule.sentence.replace("*", "\\*").replace("_.", "``_``.")
                yield from (f"   * - ``{rule.name}``", f"     - {rule.section}")
                yield from (f"     - {rule.level.value if rfc else '-'}", f"     - {sentence}")


if __name__ == "__main__":
    print(page(), end="")
