// bind.cpp - what Python may call of all that lies around the rings (bind_rings.cpp); nothing is decided here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>

#include "bind_rings.hpp"
#include "fixed_queue.hpp"
#include "ndjson.hpp"
#include "ring.hpp"
#include "seqlock.hpp"
#include "tops.hpp"
#include "tops_rows.hpp"
#include "trace.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace lob;

namespace {

using Queue = RequestQueue<>;
using BoardT = Board<>;

struct BoardOwner {
    explicit BoardOwner(Segment& segment) : header(segment.header()) {}
    void take_over(std::uint32_t pid) {
        header.epoch.fetch_add(1);
        header.writer_pid.store(pid);
        beat();
        set_state(RingState::open);
    }
    void beat() { header.heartbeat_ns.store(mono_ns(), std::memory_order_relaxed); }
    void set_state(RingState state) { header.state.store(static_cast<std::uint32_t>(state), std::memory_order_release); }
    Header& header;
};

// A record from Python, at an address where its words may be read. Throws if it is shorter than it says.
class Aligned {
public:
    const RecordHeader& of(nb::bytes record) {
        if (record.size() < sizeof(RecordHeader)) throw std::invalid_argument("a record is at least a header long");
        words_.resize((record.size() + 7) / 8);
        std::memcpy(words_.data(), record.c_str(), record.size());
        const auto& header = *reinterpret_cast<const RecordHeader*>(words_.data());
        if (header.size_bytes > record.size())
            throw std::invalid_argument("a record of " + std::to_string(record.size()) + " bytes says that it has " +
                                        std::to_string(header.size_bytes));
        return header;
    }

private:
    std::vector<std::uint64_t> words_;
};

// Lines of single records: what a printer needs.
struct Lines {
    nb::bytes take() {
        nb::bytes text(out.view().data(), out.size());
        out.clear();
        return text;
    }
    Ndjson ndjson;
    Aligned record;
    TextBuffer out;
};

// The newest tops of records that Python holds.
struct TopsOfBytes {
    Tops tops;
    Aligned record;
};

nb::dict header_facts(const Segment& segment) {
    const Header& h = segment.header();
    nb::dict facts;
    facts["kind"] = static_cast<int>(segment.kind());
    facts["policy"] = static_cast<int>(segment.policy());
    facts["capacity_bytes"] = segment.capacity_bytes();
    facts["nonce"] = h.nonce;
    facts["epoch"] = h.epoch.load();
    facts["state"] = h.state.load();
    facts["writer_pid"] = h.writer_pid.load();
    facts["heartbeat_ns"] = h.heartbeat_ns.load();
    facts["manifest_version"] = h.manifest_version.load();
    facts["first_position"] = h.first_position;
    facts["latest"] = h.latest.load();  // before the tail, and the tail before the intent: each is at most the next
    facts["tail"] = h.tail.load();
    facts["intent"] = h.intent.load();
    facts["records"] = h.records.load();
    facts["bytes"] = h.bytes.load();
    facts["drops"] = h.drops.load();
    facts["full_waits"] = h.full_waits.load();
    const auto& queue = Queue::storage(segment);
    facts["queue_recovered"] = queue.recovered.load();
    facts["queue_damaged"] = queue.damaged.load();
    nb::list readers;
    for (const auto& reader : h.readers)
        if (reader.state.load() != 0) {
            nb::dict r;
            r["name"] = std::string(reader.name, strnlen(reader.name, sizeof reader.name));
            r["slot"] = &reader - h.readers;
            r["position"] = reader.position.load();
            r["pid"] = reader.pid.load();
            r["lost"] = reader.lost.load();
            r["seq"] = reader.seq.load();
            readers.append(r);
        }
    facts["readers"] = readers;
    return facts;
}

// A histogram in this process's own memory, for tests.
struct HistogramOfPython {
    Histogram histogram;
};

nb::tuple counts_of(const Histogram& histogram) {
    std::array<std::uint64_t, Histogram::BUCKETS> counts;
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] = histogram.counts[i].load(std::memory_order_relaxed);
    return nb::make_tuple(nb::bytes(reinterpret_cast<const char*>(counts.data()), sizeof counts),
                          histogram.max.load(std::memory_order_relaxed));
}

}  // namespace

NB_MODULE(_native, m) {
    nb::exception<LayoutError>(m, "LayoutError", PyExc_RuntimeError);
    nb::exception<CorruptRing> corrupt_ring(m, "CorruptRing", PyExc_RuntimeError);

    m.attr("LAYOUT_VERSION") = LAYOUT_VERSION;
    m.attr("SCHEMA_HASH") = schema_hash();
    m.attr("READER_SLOTS") = READER_SLOTS;
    m.attr("QUEUE_ROLE") = static_cast<int>(LockedPeers::FIRST_BYTE);
    m.attr("OWNER_MAX") = OWNER_MAX;
    m.attr("MANIFEST_TEXT_MAX_BYTES") = Segment::MANIFEST_TEXT_MAX_BYTES;
    m.attr("SIZES") = [] {
        nb::dict sizes;
        sizes["RecordHeader"] = sizeof(RecordHeader);
        sizes["Level"] = sizeof(Level);
        sizes["RawBody"] = sizeof(RawBody);
        sizes["LinkBody"] = sizeof(LinkBody);
        sizes["LostBody"] = sizeof(LostBody);
        sizes["AnswerBody"] = sizeof(AnswerBody);
        sizes["BookBody"] = sizeof(BookBody);
        sizes["TradeBody"] = sizeof(TradeBody);
        sizes["BboBody"] = sizeof(BboBody);
        sizes["SequenceBody"] = sizeof(SequenceBody);
        sizes["InstrumentBody"] = sizeof(InstrumentBody);
        sizes["StatusBody"] = sizeof(StatusBody);
        sizes["BoardEntry"] = sizeof(BoardEntry);
        return sizes;
    }();
    // (struct, field) -> offset: the test of records.py compares each.
    m.attr("OFFSETS") = [] {
        nb::dict offsets;
#define LOB_FIELD(type, field) offsets[#type "." #field] = offsetof(type, field)
        LOB_FIELD(RecordHeader, size_bytes); LOB_FIELD(RecordHeader, type); LOB_FIELD(RecordHeader, flags);
        LOB_FIELD(RecordHeader, ring_seq); LOB_FIELD(RecordHeader, raw_seq); LOB_FIELD(RecordHeader, exch_ns);
        LOB_FIELD(RecordHeader, recv_ns); LOB_FIELD(RecordHeader, origin_ns); LOB_FIELD(RecordHeader, instrument);
        LOB_FIELD(RecordHeader, version); LOB_FIELD(RecordHeader, connection); LOB_FIELD(RecordHeader, session);
        LOB_FIELD(RecordHeader, epoch); LOB_FIELD(RecordHeader, stage_ns);
        LOB_FIELD(Level, price); LOB_FIELD(Level, qty);
        LOB_FIELD(RawBody, url_bytes); LOB_FIELD(RawBody, payload_bytes);
        LOB_FIELD(LinkBody, up); LOB_FIELD(LinkBody, url_bytes);
        LOB_FIELD(LostBody, count); LOB_FIELD(LostBody, scope); LOB_FIELD(LostBody, reason);
        LOB_FIELD(AnswerBody, request_id); LOB_FIELD(AnswerBody, kind); LOB_FIELD(AnswerBody, outcome);
        LOB_FIELD(AnswerBody, symbol); LOB_FIELD(AnswerBody, detail);
        LOB_FIELD(BookBody, first_seq); LOB_FIELD(BookBody, last_seq); LOB_FIELD(BookBody, prev_seq);
        LOB_FIELD(BookBody, checksum); LOB_FIELD(BookBody, rule); LOB_FIELD(BookBody, scope);
        LOB_FIELD(BookBody, has_checksum); LOB_FIELD(BookBody, bid_count); LOB_FIELD(BookBody, ask_count);
        LOB_FIELD(TradeBody, trade_id); LOB_FIELD(TradeBody, price); LOB_FIELD(TradeBody, qty);
        LOB_FIELD(TradeBody, taker_side);
        LOB_FIELD(BboBody, last_seq); LOB_FIELD(BboBody, bid_price); LOB_FIELD(BboBody, bid_qty);
        LOB_FIELD(BboBody, ask_price); LOB_FIELD(BboBody, ask_qty);
        LOB_FIELD(SequenceBody, seq); LOB_FIELD(SequenceBody, rule); LOB_FIELD(SequenceBody, scope);
        LOB_FIELD(InstrumentBody, symbol); LOB_FIELD(InstrumentBody, depth); LOB_FIELD(InstrumentBody, price_scale);
        LOB_FIELD(InstrumentBody, qty_scale); LOB_FIELD(InstrumentBody, rule); LOB_FIELD(InstrumentBody, scope);
        LOB_FIELD(InstrumentBody, checksum_rule); LOB_FIELD(InstrumentBody, truncates); LOB_FIELD(InstrumentBody, joins);
        LOB_FIELD(StatusBody, last_seq); LOB_FIELD(StatusBody, state); LOB_FIELD(StatusBody, reason);
        LOB_FIELD(BoardEntry, updates); LOB_FIELD(BoardEntry, last_seq); LOB_FIELD(BoardEntry, ring_seq);
        LOB_FIELD(BoardEntry, exch_ns); LOB_FIELD(BoardEntry, recv_ns); LOB_FIELD(BoardEntry, origin_ns);
        LOB_FIELD(BoardEntry, updated_ns); LOB_FIELD(BoardEntry, instrument); LOB_FIELD(BoardEntry, version);
        LOB_FIELD(BoardEntry, state); LOB_FIELD(BoardEntry, reason); LOB_FIELD(BoardEntry, session);
        LOB_FIELD(BoardEntry, connection); LOB_FIELD(BoardEntry, price_scale); LOB_FIELD(BoardEntry, qty_scale);
        LOB_FIELD(BoardEntry, bid_count); LOB_FIELD(BoardEntry, ask_count); LOB_FIELD(BoardEntry, symbol);
#undef LOB_FIELD
        return offsets;
    }();

    m.def("mono_ns", &mono_ns, "CLOCK_MONOTONIC in ns");
    m.def("segment_bytes", &Segment::size_for, "capacity_bytes"_a);
    m.def("board_capacity_bytes", [](std::uint32_t slots, std::uint32_t depth) { return slots * board_slot_bytes(depth); },
          "slots"_a, "depth"_a);
    m.def(
        "format_segment",
        [](int fd, int kind, int policy, std::uint64_t capacity_bytes, std::uint64_t nonce, std::uint32_t board_slots,
           std::uint32_t board_depth, std::uint64_t first_position) {
            Segment::format(fd, static_cast<Kind>(kind), static_cast<Policy>(policy), capacity_bytes, nonce, board_slots,
                            board_depth, first_position);
        },
        "fd"_a, "kind"_a, "policy"_a, "capacity_bytes"_a, "nonce"_a, "board_slots"_a = 0, "board_depth"_a = 0,
        "first_position"_a = 0, "Lay out an empty segment in a file of segment_bytes(capacity_bytes).");

    m.def(
        "bind_file",
        [](int fd, std::uint64_t size_bytes, unsigned node) {
            Pages pages;
            const int error = pages.map(fd, size_bytes, true, false);
            return error != 0 ? error : pages.bind(node);
        },
        "fd"_a, "size_bytes"_a, "node"_a, "errno; 0: the file's pages, when they are taken, will be of this NUMA node.");

    nb::class_<Segment>(m, "Segment")
        .def(nb::init<int, bool>(), "fd"_a, "writable"_a)
        .def("facts", &header_facts)
        .def_prop_ro("writable", &Segment::writable)
        .def_prop_ro("manifest_version", [](const Segment& s) { return s.header().manifest_version.load(); })
        .def_prop_ro("heartbeat_ns", [](const Segment& s) { return s.header().heartbeat_ns.load(); })
        .def_prop_ro("epoch", [](const Segment& s) { return s.header().epoch.load(); })
        .def_prop_ro("nonce", [](const Segment& s) { return s.header().nonce; })
        .def_prop_ro("address", [](Segment& s) { return reinterpret_cast<std::uintptr_t>(s.pages().base()); })
        .def_prop_ro("size_bytes", [](Segment& s) { return s.pages().bytes(); })
        .def("make_huge", [](Segment& s) { return s.pages().make_huge(); }, nb::call_guard<nb::gil_scoped_release>(),
             "errno; 0: its pages are huge ones now.")
        .def("lock", [](Segment& s) { return s.pages().lock(); }, "errno; 0: our page tables keep all of its pages.")
        .def("bind", [](Segment& s, unsigned node) { return s.pages().bind(node); }, "node"_a,
             "errno; 0: the pages that we alone have mapped moved to this NUMA node, later ones will be of it.")
        .def("write_manifest", [](Segment& s, nb::bytes text) { s.write_manifest(text.c_str(), text.size()); })
        .def("read_manifest",
             [](const Segment& s) {
                 const std::string text = s.read_manifest();
                 return nb::bytes(text.data(), text.size());
             })
        .def("name_reader",
             [](Segment& s, std::uint32_t slot, const std::string& name, std::uint32_t pid) {
                 if (slot >= READER_SLOTS) throw std::invalid_argument("no such reader slot");
                 auto& reader = s.header().readers[slot];
                 std::memset(reader.name, 0, sizeof reader.name);
                 std::memcpy(reader.name, name.data(), std::min(name.size(), sizeof reader.name - 1));
                 reader.pid.store(pid);
             })
        .def("free_reader", [](Segment& s, std::uint32_t slot) {
            if (slot >= READER_SLOTS) throw std::invalid_argument("no such reader slot");
            s.header().readers[slot].state.store(0);
            wake_if_asleep<DefaultAtomics>(s.header().writer_sleep);
        });

    bind_rings(m, corrupt_ring);

    nb::class_<Lines>(m, "Ndjson")
        .def(nb::init<>())
        .def(
            "format",
            [](Lines& l, nb::bytes record) {
                l.out.clear();
                l.ndjson.format(l.record.of(record), l.out);
                return l.take();
            },
            "record"_a, "One line. Raises ValueError for a record whose sizes are impossible.")
        .def(
            "format_many",
            [](Lines& l, nb::sequence records) {
                l.out.clear();
                for (nb::handle record : records) l.ndjson.format(l.record.of(nb::cast<nb::bytes>(record)), l.out);
                return l.take();
            },
            "records"_a, "Their lines, one after the other.")
        .def("learn", [](Lines& l, nb::bytes record) { l.ndjson.learn(l.record.of(record)); }, "record"_a,
             "Learns an instrument without a line.")
        .def_prop_ro("refused", [](const Lines& l) { return l.ndjson.refused(); });

    nb::class_<TopsOfBytes>(m, "Tops")
        .def(nb::init<>())
        .def("apply", [](TopsOfBytes& t, nb::bytes record) { t.tops.apply(t.record.of(record)); }, "record"_a)
        .def("rows", [](const TopsOfBytes& t) { return top_rows(t.tops); },
             "One tuple an instrument, by id: symbol, state, reason, bid price, bid qty, ask price, ask qty, price scale, "
             "qty scale, updates, origin_ns, latency_ns.");

    nb::class_<Queue>(m, "RequestQueue")
        .def(
            "__init__",
            [](Queue* self, Segment& segment, int lock_fd, std::uint32_t owner) {
                new (self) Queue(segment, LockedPeers(lock_fd), owner);
                self->adopt();
            },
            "segment"_a, "lock_fd"_a, "owner"_a, nb::keep_alive<1, 2>(),
            "The caller holds byte QUEUE_ROLE + owner of the lock file, from before this call to the end of the queue's life.")
        .def(
            "post",
            [](Queue& q, std::uint64_t id, int kind, int reason, const std::string& symbol) {
                Request request{};
                request.id = id;
                request.kind = static_cast<std::uint16_t>(kind);
                request.reason = static_cast<std::uint16_t>(reason);
                if (symbol.size() >= sizeof request.symbol) throw std::length_error("symbol '" + symbol + "' is too long");
                std::memcpy(request.symbol, symbol.data(), symbol.size());
                return q.try_enqueue(request);
            },
            "id"_a, "kind"_a, "reason"_a, "symbol"_a, "False: the queue is full.")
        .def("take",
             [](Queue& q) -> std::optional<std::tuple<std::uint64_t, int, int, std::string>> {
                 Request request{};
                 if (!q.try_dequeue(request)) return std::nullopt;
                 return std::make_tuple(request.id, static_cast<int>(request.kind), static_cast<int>(request.reason),
                                        std::string(request.symbol, strnlen(request.symbol, sizeof request.symbol)));
             },
             "(id, kind, reason, symbol) of the oldest request, or None.")
        .def_prop_ro("recovered", &Queue::recovered)
        .def_prop_ro("damaged", &Queue::damaged);

    // The owner of a board: its slots are written by lob-book's native code.
    nb::class_<BoardOwner>(m, "BoardOwner")
        .def(nb::init<Segment&>(), "segment"_a, nb::keep_alive<1, 2>())
        .def("take_over", &BoardOwner::take_over, "pid"_a)
        .def("beat", &BoardOwner::beat)
        .def("set_state", [](BoardOwner& o, int state) { o.set_state(static_cast<RingState>(state)); });

    m.attr("TRACE_BYTES") = TRACE_BYTES;
    m.attr("TRACE_EVENTS") = TRACE_EVENTS;
#ifdef LOB_LITE
    m.attr("LITE") = true;
#else
    m.attr("LITE") = false;
#endif
    nb::class_<Trace>(m, "Trace")
        .def(nb::init<int, bool>(), "fd"_a, "writable"_a)
        .def_static(
            "format",
            [](int fd, int stage, std::uint32_t thread, std::uint32_t pid, std::uint64_t nonce, bool on) {
                Trace::format(fd, static_cast<Stage>(stage), thread, pid, nonce, on);
            },
            "fd"_a, "stage"_a, "thread"_a, "pid"_a, "nonce"_a, "on"_a, "Lay out an empty trace in a file of TRACE_BYTES.")
        .def("facts",
             [](const Trace& t) {
                 const TraceHeader& h = t.header();
                 nb::dict facts;
                 facts["stage"] = h.stage;
                 facts["thread"] = h.thread;
                 facts["pid"] = h.pid;
                 facts["nonce"] = h.nonce;
                 facts["tsc"] = h.ticks_are_tsc != 0;
                 facts["began_ticks"] = h.began_ticks;
                 facts["began_ns"] = h.began_ns;
                 facts["began_unix_ns"] = h.began_unix_ns;
                 facts["on"] = h.on.load() != 0;
                 facts["events"] = h.head.load();
                 return facts;
             })
        .def("switch_to", [](Trace& t, bool on) { t.header().on.store(on ? 1 : 0); }, "on"_a)
        .def("write", [](Trace& t, int point, std::uint64_t raw_seq, std::uint64_t at) { t.write(static_cast<Point>(point), raw_seq, at); },
             "point"_a, "raw_seq"_a, "ticks"_a)
        .def(
            "events",
            [](const Trace& t, std::uint64_t from) {
                const Trace::Copy copy = t.copy(from);
                return nb::make_tuple(copy.next, copy.lost,
                                      nb::bytes(reinterpret_cast<const char*>(copy.words.data()), copy.words.size() * 8));
            },
            "first"_a, "(number of the event after these, events lost, pairs of (ticks, raw_seq << 8 | point) as bytes)")
        .def("share", [](const Trace& t) { return counts_of(t.share()); }, "(counts as bytes, maximum in ns)")
        .def("here", [](const Trace& t) { return counts_of(t.here()); }, "(counts as bytes, maximum in ns)")
        .def("record", [](Trace& t, std::uint64_t share_ns, std::uint64_t here_ns) {
            t.share().record(share_ns);
            t.here().record(here_ns);
        });
    m.def("trace_to", &trace_to, "trace"_a.none(), "From now on trace points go there; None: nowhere.");
    m.def(
        "clock_pair",
        [] {
            const bool tsc = tsc_is_a_clock();
            const ClockPair now = clock_pair(tsc);
            return nb::make_tuple(tsc, now.ticks, now.mono_ns);
        },
        "(whether ticks are of the time-stamp counter, ticks, CLOCK_MONOTONIC in ns), of one moment.");
    nb::class_<HistogramOfPython>(m, "Histogram")
        .def(nb::init<>())
        .def("record", [](HistogramOfPython& h, std::uint64_t value) { h.histogram.record(value); }, "value"_a)
        .def("counts", [](const HistogramOfPython& h) { return counts_of(h.histogram); }, "(counts as bytes, maximum)");

    nb::class_<BoardT>(m, "Board")
        .def(nb::init<Segment&>(), "segment"_a, nb::keep_alive<1, 2>())
        .def_prop_ro("slots", &BoardT::slots)
        .def_prop_ro("depth", &BoardT::depth)
        .def(
            "read",
            [](const BoardT& b, std::uint32_t slot) -> nb::object {
                if (slot >= b.slots()) throw std::out_of_range("no such board slot");
                BoardEntry entry{};
                std::vector<Level> levels(2 * b.depth());
                if (!b.read(slot, entry, levels.data())) return nb::none();
                return nb::make_tuple(
                    nb::bytes(reinterpret_cast<const char*>(&entry), sizeof entry),
                    nb::bytes(reinterpret_cast<const char*>(levels.data()), entry.bid_count * sizeof(Level)),
                    nb::bytes(reinterpret_cast<const char*>(levels.data() + b.depth()), entry.ask_count * sizeof(Level)));
            },
            "slot"_a, "(entry, bids, asks) as bytes, or None if the writer was in the slot at every try.");
}
