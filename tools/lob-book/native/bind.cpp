// bind.cpp - what Python may call of the books; nothing is decided here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "pump.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace lob;

namespace {

using Pairs = std::vector<std::tuple<std::int64_t, std::int64_t>>;
using Numbers = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using NumbersOut = nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::vector<Level> levels_of(const Pairs& pairs) {
    std::vector<Level> levels;
    for (const auto& [price, qty] : pairs) levels.push_back({price, qty});
    return levels;
}

Pairs pairs_of(const Ladder& ladder, std::uint32_t depth) {
    std::vector<Level> levels(std::min(depth, ladder.size()));
    ladder.top(static_cast<std::uint32_t>(levels.size()), levels.data());
    Pairs pairs;
    for (const Level& level : levels) pairs.emplace_back(level.price, level.qty);
    return pairs;
}

// A record from Python as aligned words; its length must be true, for nothing behind it belongs to us.
std::vector<std::uint64_t> staged(nb::bytes record) {
    if (record.size() < sizeof(RecordHeader)) throw std::invalid_argument("a record is at least a header long");
    std::vector<std::uint64_t> words((record.size() + 7) / 8);
    std::memcpy(words.data(), record.c_str(), record.size());
    reinterpret_cast<RecordHeader*>(words.data())->size_bytes = static_cast<std::uint32_t>(words.size() * 8);
    return words;
}

std::vector<nb::bytes> take_records(Books& books) {
    std::vector<nb::bytes> records;
    while (const RecordHeader* record = books.out().next()) {
        records.emplace_back(reinterpret_cast<const char*>(record), record->size_bytes);
        books.out().sent();
    }
    books.out().clear();
    books.take_board_due([](Book&) {});
    return records;
}

std::string symbol_of(const InstrumentBody& facts) {
    return std::string(facts.symbol, strnlen(facts.symbol, sizeof facts.symbol));
}

// As lob.instruments.entry makes it: what the manifest says of an instrument.
nb::dict entry(const Book& book) {
    nb::dict fields;
    fields["id"] = book.id;
    fields["version"] = book.version;
    const std::string symbol = symbol_of(book.facts);
    fields["symbol"] = nb::steal<nb::str>(PyUnicode_DecodeUTF8(symbol.data(), static_cast<Py_ssize_t>(symbol.size()), "replace"));
    fields["connection"] = book.connection;
    fields["depth"] = book.facts.depth;
    fields["price_scale"] = book.facts.price_scale;
    fields["qty_scale"] = book.facts.qty_scale;
    fields["rule"] = book.facts.rule;
    fields["scope"] = book.facts.scope;
    fields["checksum_rule"] = book.facts.checksum_rule;
    fields["truncates"] = book.facts.truncates;
    fields["joins"] = book.facts.joins;
    return fields;
}

nb::dict describe(const Book& book, std::uint32_t depth) {
    nb::dict facts = entry(book);
    const Counters& c = book.counters;
    facts["session"] = book.session;
    facts["state"] = static_cast<int>(book.state);
    facts["reason"] = static_cast<int>(book.reason);
    facts["last_seq"] = book.sync.last();
    facts["bid_levels"] = book.bids.size();
    facts["ask_levels"] = book.asks.size();
    facts["bids"] = pairs_of(book.bids, depth);
    facts["asks"] = pairs_of(book.asks, depth);
    facts["backlog"] = book.backlog.size();
    facts["snapshots"] = c.snapshots;
    facts["snapshots_ignored"] = c.snapshots_ignored;
    facts["snapshots_old"] = c.snapshots_old;
    facts["updates"] = c.updates;
    facts["level_updates"] = c.level_updates;
    facts["stale_dropped"] = c.stale_dropped;
    facts["dropped"] = c.dropped;
    facts["buffer_dropped"] = c.buffer_dropped;
    facts["gaps"] = c.gaps;
    facts["resyncs"] = c.resyncs;
    facts["requests"] = c.requests;
    facts["refused"] = c.refused;
    facts["checksums_ok"] = c.checksums_ok;
    facts["checksums_failed"] = c.checksums_failed;
    facts["crossed"] = c.crossed;
    facts["out_of_range"] = c.out_of_range;
    facts["oversize"] = c.oversize;
    facts["levels_fallen"] = c.levels_fallen;
    facts["trades"] = c.trades;
    facts["venue_bbos"] = c.venue_bbos;
    facts["bad_records"] = c.bad_records;
    return facts;
}

}  // namespace

NB_MODULE(_native, m) {
    nb::module_::import_("lob._native");  // the types of the rings
    m.def("trace_to", &lob::trace_to, "trace"_a.none(), "From now on trace points go there; None: nowhere.");

    m.def(
        "crc32",
        [](nb::bytes text) {
            Crc32 crc;
            crc.update(text.c_str(), text.size());
            return crc.value();
        },
        "text"_a, "CRC-32 as zlib's.");

    nb::class_<Ladder>(m, "Ladder")
        .def("__init__",
             [](Ladder* self, const std::string& side) {
                 if (side != "bid" && side != "ask") throw std::invalid_argument("a side is bid or ask");
                 new (self) Ladder(side == "bid" ? Side::bid : Side::ask);
             },
             "side"_a)
        .def("set", &Ladder::set, "price"_a, "qty"_a, "The quantity before; 0: there was no such level.")
        .def(
            "set_all",
            [](Ladder& ladder, Numbers prices, Numbers qtys, NumbersOut before) {
                if (prices.size() != qtys.size() || prices.size() != before.size())
                    throw std::invalid_argument("as many prices as quantities, and room for as many before");
                std::vector<Level> levels(prices.size());
                for (std::size_t i = 0; i < levels.size(); ++i) levels[i] = {prices.data()[i], qtys.data()[i]};
                std::int64_t* out = before.data();
                nb::gil_scoped_release release;
                ladder.set_all(levels.data(), static_cast<std::uint32_t>(levels.size()),
                               [&](std::int64_t, std::int64_t qty_before, std::int64_t) { *out++ = qty_before; });
            },
            "prices"_a, "qtys"_a, "before"_a, "A message: set() of each in turn; `before` takes the quantities before.")
        .def("assign",
             [](Ladder& ladder, const Pairs& pairs) {
                 const auto levels = levels_of(pairs);
                 ladder.assign(levels.data(), static_cast<std::uint32_t>(levels.size()));
             },
             "levels"_a)
        .def("clear", &Ladder::clear)
        .def("qty_at", &Ladder::qty_at, "price"_a)
        .def("top", &pairs_of, "n"_a, "The best n levels as (price, qty), best first.")
        .def("best",
             [](const Ladder& ladder) {
                 const Level best = ladder.best();
                 return std::make_tuple(best.price, best.qty);
             })
        .def("levels",
             [](const Ladder& ladder) {
                 Pairs pairs;
                 ladder.for_each([&](Level level) { pairs.emplace_back(level.price, level.qty); });
                 return pairs;
             })
        .def("truncate",
             [](Ladder& ladder, std::uint32_t depth) {
                 Pairs cut;
                 ladder.truncate(depth, [&](Level level) { cut.emplace_back(level.price, level.qty); });
                 return cut;
             },
             "depth"_a, "The levels beyond the best `depth`, now gone.")
        .def("rescale", &Ladder::rescale, "price_exponent"_a, "qty_exponent"_a)
        .def("check", [](const Ladder& ladder) {
            if (const char* broken = ladder.check()) throw std::logic_error(broken);
        })
        .def("__len__", &Ladder::size);

    m.def("kraken_checksum", &kraken_checksum, "bids"_a, "asks"_a);

    nb::class_<Books>(m, "Books")
        .def("__init__",
             [](Books* self, std::uint32_t depth, std::uint32_t board_depth, std::int64_t refresh_ns, bool asks,
                std::uint64_t first_request_id, std::uint32_t requests_per_s, std::uint32_t requests_burst,
                std::uint32_t backlog_records, std::uint32_t backlog_bytes, std::uint64_t record_max_bytes) {
                 Settings settings;
                 settings.depth = depth;
                 settings.board_depth = board_depth;
                 settings.refresh_ns = refresh_ns;
                 settings.asking.asks = asks;
                 settings.asking.first_request_id = first_request_id;
                 settings.asking.requests_per_s = requests_per_s;
                 settings.asking.requests_burst = requests_burst;
                 settings.backlog_records = backlog_records;
                 settings.backlog_bytes = backlog_bytes;
                 settings.record_max_bytes = record_max_bytes;
                 new (self) Books(settings);
             },
             nb::kw_only(), "depth"_a = Settings{}.depth, "board_depth"_a = Settings{}.board_depth,
             "refresh_ns"_a = Settings{}.refresh_ns, "asks"_a = Settings{}.asking.asks,
             "first_request_id"_a = Settings{}.asking.first_request_id, "requests_per_s"_a = Settings{}.asking.requests_per_s,
             "requests_burst"_a = Settings{}.asking.requests_burst, "backlog_records"_a = Settings{}.backlog_records,
             "backlog_bytes"_a = Settings{}.backlog_bytes, "record_max_bytes"_a = Settings{}.record_max_bytes)
        .def(
            "feed",
            [](Books& books, nb::bytes record, std::int64_t now_ns) {
                const auto words = staged(record);
                books.feed(*reinterpret_cast<const RecordHeader*>(words.data()), now_ns);
                return take_records(books);
            },
            "record"_a, "now_ns"_a, "Without rings: one record in, the records that it makes out.")
        .def(
            "tick",
            [](Books& books, std::int64_t now_ns) {
                while (books.tick(now_ns)) {
                }
                return take_records(books);
            },
            "now_ns"_a, "Without rings: everything whose time has come.")
        .def(
            "upstream_silent",
            [](Books& books, bool silent, std::int64_t now_ns) {
                books.upstream_silent(silent, now_ns);
                return take_records(books);
            },
            "silent"_a, "now_ns"_a, "Without rings: as Pump.upstream_silent.")
        .def("take_requests",
             [](Books& books) {
                 std::vector<std::tuple<std::uint64_t, int, int, std::string>> requests;
                 for (const Request& r : books.requests())
                     requests.emplace_back(r.id, r.kind, r.reason, std::string(r.symbol, strnlen(r.symbol, sizeof r.symbol)));
                 books.requests().clear();
                 return requests;
             },
             "Without rings: (id, kind, reason, symbol) of each request made since the last call.")
        .def("take_records", &take_records, "Without rings: what the calls without a result have made.")
        .def("upstream_changed", &Books::upstream_changed, "now_ns"_a, "The input is another ring now.")
        .def(
            "restore",
            [](Books& books, nb::bytes record, std::int64_t now_ns) {
                const auto words = staged(record);
                books.restore(*reinterpret_cast<const RecordHeader*>(words.data()), now_ns);
            },
            "record"_a, "now_ns"_a, "A book of an owner before us, as its instrument record: stale(restarted), then building.")
        .def(
            "refresh", [](Books& books, const std::string& symbol, std::int64_t now_ns) { return books.refresh(symbol.c_str(), now_ns); },
            "symbol"_a, "now_ns"_a, "Publish the full snapshot once more; False if no such book is live.")
        .def("instruments",
             [](const Books& books) {
                 nb::list all;
                 for (const auto& book : books.books())
                     if (book) all.append(entry(*book));
                 return all;
             },
             "A dict an instrument, as lob.instruments.entry makes it.")
        .def_prop_ro("announced", &Books::announced, "Rises with every instrument record that went out.")
        .def(
            "describe",
            [](const Books& books, std::uint32_t depth) {
                nb::list all;
                for (const auto& book : books.books())
                    if (book) all.append(describe(*book, depth));
                return all;
            },
            "depth"_a = 10, "A dict a book: facts, state, counters, best levels.")
        .def(
            "describe_one",
            [](const Books& books, std::uint32_t id, std::uint32_t depth) -> nb::object {
                const Book* book = books.find(id);
                if (book == nullptr) return nb::none();
                return describe(*book, depth);
            },
            "id"_a, "depth"_a = 10)
        .def("check",
             [](const Books& books) {
                 for (const auto& book : books.books()) {
                     if (!book) continue;
                     for (const Ladder* side : {&book->bids, &book->asks})
                         if (const char* broken = side->check()) throw std::logic_error(broken);
                 }
             },
             "Raises if an invariant does not hold.")
        .def_prop_ro("count", [](const Books& books) {
            std::size_t count = 0;
            for (const auto& book : books.books()) count += book != nullptr;
            return count;
        })
        .def_prop_ro("live", [](const Books& books) {
            std::size_t live = 0;
            for (const auto& book : books.books()) live += book && book->state == BookState::live;
            return live;
        })
        .def_prop_ro("due_ns", &Books::due_ns)
        .def_prop_ro("holes", &Books::holes)
        .def_prop_ro("records_of_unknown", &Books::records_of_unknown);

    nb::class_<Pump>(m, "Pump")
        .def("__init__",
             [](Pump* self, Books& books, SpscReader<>& reader, BroadcastWriter<>& writer, Board<>* board,
                RequestQueue<>* requests, const std::string& clock, const std::string& wait) {
                 if (clock != "records" && clock != "host") throw std::invalid_argument("a clock is records or host");
                 new (self) Pump(books, reader, writer, board, requests, clock == "host" ? Clock::host : Clock::records,
                                 wait_mode(wait));
             },
             "books"_a, "reader"_a, "writer"_a, "board"_a.none(), "requests"_a.none(), "clock"_a, "wait"_a,
             nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>(), nb::keep_alive<1, 4>(), nb::keep_alive<1, 5>(),
             nb::keep_alive<1, 6>())
        .def(
            "run",
            [](Pump& pump, int stint_ms, int idle_ms) {
                nb::gil_scoped_release release;
                const PumpResult result = pump.run(stint_ms, idle_ms);
                return std::make_tuple(result.records, result.idle, result.blocked);
            },
            "stint_ms"_a, "idle_ms"_a = 50,
            "(records processed, idle, blocked): works for stint_ms, less if nothing comes for idle_ms or a reader asks; "
            "idle: nothing came; blocked: the ring is full.")
        .def("upstream_silent", &Pump::upstream_silent, "silent"_a)
        .def("wait_by", [](Pump& pump, const std::string& wait) { pump.wait = wait_mode(wait); }, "wait"_a)
        .def("flush", &Pump::flush, "What the books made outside of run(); False: the ring is full.")
        .def("repair_board", &Pump::repair_board)
        .def_prop_ro("beyond_board", &Pump::beyond_board, "Instruments that the board has no slot for.");
}
