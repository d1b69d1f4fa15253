// layout.hpp - the records that cross processes. The one place where their bytes are decided;
// shared/lob/records.py mirrors them as numpy dtypes and a test compares both, field by field.
//
// A record is a RecordHeader, then one body struct, then an array (levels or text).
// Every record is 8-byte aligned and its size a multiple of 8. Numbers are little-endian.
// Prices and quantities are int64 mantissas; the value is mantissa / 10^scale, the two scales stand
// in the instrument's record (InstrumentBody) and change only together with its `version`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace lob {

inline constexpr std::uint32_t LAYOUT_VERSION = 2;

enum class RecordType : std::uint16_t {
    pad = 0,  // fills the ring up to its end; only the first 8 bytes of the header exist
    // raw ring (lob-connect -> lob-parse)
    raw_frame = 1,  // RawBody, payload: one complete WebSocket message
    raw_http = 2,   // RawBody, url, payload: the answer to a REST request
    raw_sent = 3,   // RawBody, url, payload: what we sent on the socket
    link = 4,       // LinkBody, url: a connection was opened or is gone
    lost = 5,       // LostBody: data are missing, and where
    answer = 6,     // AnswerBody: what became of a request that travelled upstream
    // event ring (lob-parse -> lob-book) and book ring (lob-book -> everybody)
    snapshot = 16,    // BookBody, levels: replaces the book
    diff = 17,        // BookBody, levels: absolute quantities, 0 removes
    trade = 18,       // TradeBody
    bbo = 19,         // BboBody: on the event ring the venue's own, on the book ring ours, when it moved
    sequence = 20,    // SequenceBody: a message without a book that still counts in the connection's sequence
    instrument = 21,  // InstrumentBody: before the first record of an instrument and of each new version
    status = 22,      // StatusBody: the state of a book
};

// Bits of RecordHeader::flags.
inline constexpr std::uint16_t FLAG_CONTINUED = 1;  // not the first event of its raw record
inline constexpr std::uint16_t FLAG_ASKED = 2;      // snapshot by REST: joins the stream by its sequence number
inline constexpr std::uint16_t FLAG_REFRESH = 4;    // snapshot repeated for late readers: the book did not change

enum class SequenceRule : std::uint8_t { none = 0, range = 1, chain = 2, step = 3 };
enum class Scope : std::uint8_t { instrument = 0, connection = 1, all = 2 };
enum class BookState : std::uint8_t { building = 0, live = 1, stale = 2, resyncing = 3, closed = 4 };
enum class Reason : std::uint8_t {
    none = 0,
    restarted = 1,        // lob-book started on a ring that had another owner before
    gap = 2,              // sequence numbers are missing
    checksum = 3,         // the venue's checksum does not match ours
    crossed = 4,          // best bid at or above best ask
    link_down = 5,        // the connection is gone
    lost = 6,             // a hole in a ring: records were dropped or a writer died
    upstream_silent = 7,  // the writer of our input has not shown a sign of life
    bad_message = 8,      // a frame that names this instrument could not be decoded
    out_of_range = 9,     // a number does not fit int64 at the instrument's scale
    oversize = 10,        // a record was larger than the ring takes
    buffer_full = 11,     // too many diffs waited for a snapshot
    session = 12,         // a new connection session: the old one's state is void
    snapshot_old = 13,    // the snapshot is older than the first diff that was kept
    upstream_closed = 14, // the input ended
};
enum class Outcome : std::uint8_t { done = 0, refused = 1, failed = 2 };
enum class RequestKind : std::uint16_t { snapshot = 1, resync = 2, reconnect = 3, subscribe = 4, unsubscribe = 5 };
enum class TakerSide : std::uint8_t { buy = 0, sell = 1, unknown = 2 };

// Stages in the order a message passes them; index of RecordHeader::stage_ns.
enum class Stage : std::uint8_t { connect = 0, parse = 1, book = 2, publish = 3 };

inline constexpr std::uint32_t NO_INSTRUMENT = 0xFFFFFFFFu;
inline constexpr std::uint16_t NO_CONNECTION = 0xFFFFu;

struct RecordHeader {
    std::uint32_t size_bytes;  // header, body, array and padding to 8
    std::uint16_t type;        // RecordType
    std::uint16_t flags;
    std::uint64_t ring_seq;    // running number in this ring, dropped records counted; assigned by the ring's writer
    std::uint64_t raw_seq;     // ring_seq in the raw ring of the record this one came from; 0: from none
    std::int64_t exch_ns;      // the venue's event time, Unix; 0: not given
    std::int64_t recv_ns;      // Unix time of the read that completed the frame; 0: the recording has none
    std::int64_t origin_ns;    // CLOCK_MONOTONIC of the same moment (of the replay, for a recording)
    std::uint32_t instrument;  // id given by the parser, valid in (ring, epoch); NO_INSTRUMENT
    std::uint16_t version;     // of the instrument: rises when a scale changes
    std::uint16_t connection;  // id given by lob-connect; NO_CONNECTION
    std::uint32_t session;     // of the connection: rises at each reconnect
    std::uint32_t epoch;       // of the ring: rises with each owner; assigned by the ring's writer
    std::uint32_t stage_ns[4]; // ns from origin_ns to the commit of each stage so far, 0: not passed; saturates at 4.29 s
};
static_assert(sizeof(RecordHeader) == 80 && alignof(RecordHeader) == 8, "other processes rely on it");
static_assert(offsetof(RecordHeader, instrument) == 48 && offsetof(RecordHeader, stage_ns) == 64);

struct Level {
    std::int64_t price;
    std::int64_t qty;  // absolute; 0: no such level (any more)
};
static_assert(sizeof(Level) == 16);

struct RawBody {  // then url_bytes of url, then payload_bytes of payload
    std::uint32_t url_bytes;
    std::uint32_t payload_bytes;
};
static_assert(sizeof(RawBody) == 8);

struct LinkBody {  // then url_bytes of url
    std::uint32_t up;  // 1: open, 0: gone
    std::uint32_t url_bytes;
};
static_assert(sizeof(LinkBody) == 8);

struct LostBody {
    std::uint64_t count;  // records; 0: unknown
    std::uint8_t scope;   // Scope; the header names the instrument or the connection
    std::uint8_t reason;  // Reason
    std::uint8_t pad[6];
};
static_assert(sizeof(LostBody) == 16);

struct AnswerBody {
    std::uint64_t request_id;
    std::uint16_t kind;    // RequestKind
    std::uint8_t outcome;  // Outcome
    std::uint8_t pad[5];
    char symbol[64];
    char detail[64];
};
static_assert(sizeof(AnswerBody) == 144);

struct BookBody {             // then bid_count levels, then ask_count levels
    std::uint64_t first_seq;  // number of the first event folded into this message
    std::uint64_t last_seq;   // number of the book after it
    std::uint64_t prev_seq;   // number of the message before it, where the venue sends one
    std::uint32_t checksum;
    std::uint8_t rule;          // SequenceRule
    std::uint8_t scope;         // Scope of the numbers: instrument or connection
    std::uint8_t has_checksum;
    std::uint8_t pad;
    std::uint32_t bid_count;
    std::uint32_t ask_count;
};
static_assert(sizeof(BookBody) == 40);

struct TradeBody {
    std::uint64_t trade_id;
    std::int64_t price;
    std::int64_t qty;
    std::uint8_t taker_side;  // TakerSide
    std::uint8_t pad[7];
};
static_assert(sizeof(TradeBody) == 32);

struct BboBody {  // a missing side has quantity 0
    std::uint64_t last_seq;
    std::int64_t bid_price;
    std::int64_t bid_qty;
    std::int64_t ask_price;
    std::int64_t ask_qty;
};
static_assert(sizeof(BboBody) == 40);

struct SequenceBody {
    std::uint64_t seq;
    std::uint8_t rule;
    std::uint8_t scope;
    std::uint8_t pad[6];
};
static_assert(sizeof(SequenceBody) == 16);

struct InstrumentBody {
    char symbol[64];           // the venue's own, UTF-8, NUL-padded
    std::uint32_t depth;       // levels a side that the venue was asked for; 0: all
    std::uint8_t price_scale;  // value = mantissa / 10^scale
    std::uint8_t qty_scale;
    std::uint8_t rule;          // SequenceRule of its diffs
    std::uint8_t scope;         // Scope of their numbers
    std::uint8_t checksum_rule; // ChecksumRule
    std::uint8_t truncates;     // 1: levels beyond `depth` must be cut after each message
    std::uint8_t joins;         // 1: the snapshot comes by REST and joins by number; 0: in the stream
    std::uint8_t pad[5];
};
static_assert(sizeof(InstrumentBody) == 80);

enum class ChecksumRule : std::uint8_t { none = 0, kraken_crc32 = 1 };

struct StatusBody {
    std::uint64_t last_seq;
    std::uint8_t state;   // BookState
    std::uint8_t reason;  // Reason, why it is not live
    std::uint8_t pad[6];
};
static_assert(sizeof(StatusBody) == 16);

// One request that travels upstream (a slot of the request queue holds it).
struct Request {
    std::uint64_t id;
    std::uint16_t kind;    // RequestKind
    std::uint16_t reason;  // Reason
    std::uint32_t pad;
    char symbol[64];       // the venue's; empty: the whole connection
};
static_assert(sizeof(Request) == 80);

constexpr std::uint32_t align8(std::uint32_t n) { return (n + 7u) & ~7u; }

// Changes with every field above: two builds that disagree refuse each other at attach.
inline constexpr std::uint64_t schema_hash() {
    std::uint64_t hash = 1469598103934665603ull;
    constexpr std::uint64_t facts[] = {
        LAYOUT_VERSION,         sizeof(RecordHeader), sizeof(Level),          sizeof(RawBody),   sizeof(LinkBody),
        sizeof(LostBody),       sizeof(AnswerBody),   sizeof(BookBody),       sizeof(TradeBody), sizeof(BboBody),
        sizeof(SequenceBody),   sizeof(StatusBody),   sizeof(InstrumentBody), sizeof(Request),   offsetof(RecordHeader, stage_ns)};
    for (std::uint64_t fact : facts) hash = (hash ^ fact) * 1099511628211ull;
    return hash;
}

}  // namespace lob
