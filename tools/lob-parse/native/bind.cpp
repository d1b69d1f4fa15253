// bind.cpp - what Python may call of the parser; nothing is decided here.
// Readers and writers come from lob._native, which must be imported first.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "compile.hpp"
#include "parser.hpp"

namespace nb = nanobind;
using namespace nb::literals;
namespace parse = lob::parse;

namespace {

nb::bytes bytes_of(std::string_view text) { return nb::bytes(text.data(), text.size()); }

// The methods of a Python object; see the class VenueHooks in lob_parse/hooks.py.
class PythonHooks final : public parse::Hooks {
public:
    explicit PythonHooks(nb::object object) : object_(std::move(object)) {}

    std::vector<parse::Subscribed> sent(std::string_view text) override {
        nb::gil_scoped_acquire gil;
        return books(object_.attr("sent")(bytes_of(text)));
    }
    std::vector<parse::Subscribed> opened(std::string_view url) override {
        nb::gil_scoped_acquire gil;
        return books(object_.attr("opened")(bytes_of(url)));
    }
    bool control(std::string_view frame, std::vector<parse::Subscribed>& out) override {
        nb::gil_scoped_acquire gil;
        const nb::object answer = object_.attr("control")(bytes_of(frame));
        if (answer.is_none()) return false;
        out = books(answer);
        return true;
    }
    parse::HttpMeaning http(std::string_view url) override {
        nb::gil_scoped_acquire gil;
        const auto [kind, symbol] = nb::cast<std::pair<std::string, std::string>>(object_.attr("http")(bytes_of(url)));
        parse::HttpMeaning meaning;
        if (kind == "snapshot") meaning.kind = parse::HttpMeaning::Kind::snapshot;
        else if (kind == "metadata") meaning.kind = parse::HttpMeaning::Kind::metadata;
        meaning.symbol = symbol;
        return meaning;
    }
    std::vector<parse::SymbolSteps> metadata(std::string_view body) override {
        nb::gil_scoped_acquire gil;
        std::vector<parse::SymbolSteps> all;
        for (auto& [symbol, price_scale, qty_scale] :
             nb::cast<std::vector<std::tuple<std::string, std::uint8_t, std::uint8_t>>>(object_.attr("metadata")(bytes_of(body))))
            all.push_back({symbol, {price_scale, qty_scale, true}});
        return all;
    }
    void instruments_changed(std::uint64_t raw_seq) override {
        nb::gil_scoped_acquire gil;
        object_.attr("instruments_changed")(raw_seq);
    }

    // For Python's garbage collector: who owns a parser is often known by its hooks, too.
    int traverse(visitproc visit, void* arg) {
        Py_VISIT(object_.ptr());
        return 0;
    }
    void clear() { object_.reset(); }

private:
    static std::vector<parse::Subscribed> books(nb::handle answer) {
        std::vector<parse::Subscribed> all;
        for (auto& [symbol, depth] : nb::cast<std::vector<std::pair<std::string, std::uint32_t>>>(answer))
            all.push_back({symbol, depth});
        return all;
    }

    nb::object object_;
};

struct PyParser {
    PythonHooks hooks;
    parse::Parser parser;

    PyParser(nb::object shape, nb::object rest, parse::Facts facts, nb::object object)
        : hooks(std::move(object)), parser(parse::Compiler::compile(shape), optional_plan(rest), facts, hooks) {}

    static std::optional<parse::Plan> optional_plan(nb::handle shape) {
        if (shape.is_none()) return std::nullopt;
        return parse::Compiler::compile(shape);
    }
};

int parser_traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (!nb::inst_ready(self)) return 0;
    return nb::inst_ptr<PyParser>(self)->hooks.traverse(visit, arg);
}
int parser_clear(PyObject* self) {
    if (nb::inst_ready(self)) nb::inst_ptr<PyParser>(self)->hooks.clear();
    return 0;
}
PyType_Slot parser_slots[] = {{Py_tp_traverse, reinterpret_cast<void*>(parser_traverse)},
                              {Py_tp_clear, reinterpret_cast<void*>(parser_clear)},
                              {0, nullptr}};

// A decoder alone, for tests and measurements: no ring, no instruments, no scales.
struct PyDecoder {
    parse::Plan plan;
    lob::SequenceRule rule;
    parse::Decoder decoder;

    PyDecoder(nb::handle shape, int rule_number) : plan(parse::Compiler::compile(shape)), rule(static_cast<lob::SequenceRule>(rule_number)) {}

    static nb::tuple number(const parse::Decimal& value) {
        nb::int_ mantissa(value.mantissa);
        return nb::make_tuple(value.negative ? nb::steal<nb::object>(PyNumber_Negative(mantissa.ptr())) : nb::object(mantissa), value.decimals);
    }

    static const char* name(parse::Bad why) {
        constexpr const char* NAMES[] = {"ok", "bad_json", "bad_number", "bad_time", "bad_field", "bad_symbol", "out_of_range", "oversize"};
        return NAMES[static_cast<std::size_t>(why)];
    }

    nb::dict event(const parse::Message& message) {
        constexpr const char* KINDS[] = {"none", "snapshot", "diff", "trade", "bbo", "ignore"};
        constexpr const char* NUMBERS[] = {"bid_price", "bid_qty", "ask_price", "ask_qty", "price", "qty"};
        nb::dict out;
        out["kind"] = KINDS[static_cast<std::size_t>(message.kind)];
        out["symbol"] = nb::str(message.symbol.data(), message.symbol.size());
        out["exch_ns"] = message.exch_ns;
        if (message.kind == parse::Kind::trade) {
            out["trade_id"] = message.trade_id;
            out["taker_side"] = static_cast<int>(message.taker_side);
            for (int i = 4; i < 6; ++i) out[NUMBERS[i]] = number(message.decimals[i]);
            return out;
        }
        out["last_seq"] = message.last_seq;
        if (message.kind == parse::Kind::bbo) {
            for (int i = 0; i < 4; ++i) out[NUMBERS[i]] = number(message.decimals[i]);
            return out;
        }
        out["first_seq"] = message.first_seq;
        out["prev_seq"] = message.prev_seq;
        out["checksum"] = message.has_checksum ? nb::object(nb::int_(message.checksum)) : nb::none();
        for (unsigned side = 0; side < 2; ++side) {
            nb::list levels;
            decoder.each_part(message.scope, side, [&](const parse::RawLevel* level, std::uint32_t count) {
                for (std::uint32_t i = 0; i < count; ++i, ++level)
                    levels.append(nb::make_tuple(number({level->price, level->price_decimals, level->price_negative}),
                                                 number({level->qty, level->qty_decimals, false})));
                return true;
            });
            out[side == 0 ? "bids" : "asks"] = levels;
        }
        return out;
    }

    nb::tuple decode(nb::bytes frame, const std::string& symbol) {
        nb::list events;
        if (!decoder.read(plan, frame.c_str(), frame.size())) return nb::make_tuple(name(decoder.error()), events);
        bool known = false;
        for (std::uint32_t scope = 0; scope < decoder.scopes().count(); ++scope) {
            const parse::Kind kind = decoder.kind_of(scope);
            if (kind == parse::Kind::none) continue;
            known = true;
            if (kind == parse::Kind::ignore) continue;
            parse::Message message;
            if (!decoder.message(scope, kind, rule, symbol, message)) return nb::make_tuple(name(decoder.error()), nb::list());
            events.append(event(message));
        }
        return nb::make_tuple(known ? "ok" : "unknown_frame", events);
    }

    // Best time in ns of `repeat` runs over all frames, and the levels in them. No conversion to Python.
    std::pair<std::int64_t, std::uint64_t> time(const std::vector<nb::bytes>& frames, int repeat) {
        std::vector<std::string> texts;
        for (const nb::bytes& frame : frames) texts.emplace_back(frame.c_str(), frame.size());
        nb::gil_scoped_release release;
        std::int64_t best_ns = std::numeric_limits<std::int64_t>::max();
        std::uint64_t levels = 0;
        parse::Message message;
        for (int i = 0; i < repeat; ++i) {
            levels = 0;
            const std::int64_t begin_ns = lob::mono_ns();
            for (const std::string& text : texts) {
                if (!decoder.read(plan, text.data(), text.size())) continue;
                for (std::uint32_t scope = 0; scope < decoder.scopes().count(); ++scope) {
                    const parse::Kind kind = decoder.kind_of(scope);
                    if (kind == parse::Kind::none || kind == parse::Kind::ignore) continue;
                    if (!decoder.message(scope, kind, rule, {}, message)) continue;
                    if (kind == parse::Kind::snapshot || kind == parse::Kind::diff)
                        levels += decoder.level_count(scope, 0) + decoder.level_count(scope, 1);
                }
            }
            best_ns = std::min(best_ns, lob::mono_ns() - begin_ns);
        }
        return {best_ns, levels};
    }
};

}  // namespace

NB_MODULE(_native, m) {
    nb::module_::import_("lob._native");  // SpscReader, SpscWriter, CorruptRing
    m.def("trace_to", &lob::trace_to, "trace"_a.none(), "From now on trace points go there; None: nowhere.");

    nb::class_<PyParser>(m, "Parser", nb::type_slots(parser_slots))
        .def(
            "__init__",
            [](PyParser* self, nb::object shape, nb::object snapshot_shape, int rule, int scope, int checksum_rule, bool truncates,
               bool joins, nb::object hooks) {
                const parse::Facts facts{static_cast<lob::SequenceRule>(rule), static_cast<lob::Scope>(scope),
                                         static_cast<lob::ChecksumRule>(checksum_rule), truncates, joins};
                new (self) PyParser(std::move(shape), std::move(snapshot_shape), facts, std::move(hooks));
            },
            "shape"_a, "snapshot_shape"_a.none(), "rule"_a, "scope"_a, "checksum_rule"_a, "truncates"_a, "joins"_a, "hooks"_a)
        .def(
            "run",
            [](PyParser& p, lob::SpscReader<>& reader, lob::SpscWriter<>& writer, const std::string& mode, int stint_ms, int idle_ms) {
                const lob::WaitMode parsed = lob::wait_mode(mode);
                nb::gil_scoped_release release;
                return p.parser.run(reader, writer, parsed, stint_ms * 1'000'000ll, idle_ms * 1'000'000ll);
            },
            "reader"_a, "writer"_a, "wait"_a = "auto", "stint_ms"_a = 50, "idle_ms"_a = 20,
            "Raw records -> events, until the input is empty for idle_ms, stint_ms have passed or the reader asks; records done.")
        .def("resume", [](PyParser& p, std::uint64_t raw_seq) { p.parser.resume(raw_seq); }, "raw_seq"_a)
        .def("replaced", [](PyParser& p) { p.parser.replaced(); }, "The input is another ring: tell the reader that all is lost.")
        .def(
            "status",
            [](PyParser& p, lob::SpscWriter<>& writer, int state, int reason) {
                return p.parser.status(writer, static_cast<lob::BookState>(state), static_cast<lob::Reason>(reason));
            },
            "writer"_a, "state"_a, "reason"_a, "A status record of no instrument. False: the ring is full.")
        .def(
            "restore",
            [](PyParser& p, const std::string& symbol, int connection, int version, int price_scale, int qty_scale, std::uint32_t depth,
               std::uint64_t raw_seq, bool announced) {
                parse::Instrument instrument;
                instrument.symbol = symbol;
                instrument.connection = static_cast<std::uint16_t>(connection);
                instrument.version = static_cast<std::uint16_t>(version);
                instrument.price_scale = static_cast<std::uint8_t>(price_scale);
                instrument.qty_scale = static_cast<std::uint8_t>(qty_scale);
                instrument.depth = depth;
                instrument.raw_seq = raw_seq;
                instrument.announced = announced;
                if (price_scale > parse::SCALE_MAX || qty_scale > parse::SCALE_MAX || symbol.empty() ||
                    symbol.size() >= sizeof(lob::InstrumentBody::symbol))
                    throw std::invalid_argument("no such instrument can be: '" + symbol + "'");
                p.parser.instruments().restore(std::move(instrument));
            },
            "symbol"_a, "connection"_a, "version"_a, "price_scale"_a, "qty_scale"_a, "depth"_a, "raw_seq"_a, "announced"_a,
            "An instrument of the run before; call it in order of ids.")
        .def("instruments",
             [](PyParser& p) {
                 nb::list all;
                 for (std::uint32_t id = 0; id < p.parser.instruments().size(); ++id) {
                     const parse::Instrument& instrument = p.parser.instruments()[id];
                     nb::dict entry;
                     entry["id"] = id;
                     entry["symbol"] = instrument.symbol;
                     entry["connection"] = instrument.connection;
                     entry["version"] = instrument.version;
                     entry["price_scale"] = instrument.price_scale;
                     entry["qty_scale"] = instrument.qty_scale;
                     entry["depth"] = instrument.depth;
                     entry["raw_seq"] = instrument.raw_seq;
                     entry["rule"] = static_cast<int>(p.parser.facts().rule);
                     entry["scope"] = static_cast<int>(p.parser.facts().scope);
                     entry["checksum_rule"] = static_cast<int>(p.parser.facts().checksum);
                     entry["truncates"] = static_cast<int>(p.parser.facts().truncates);
                     entry["joins"] = static_cast<int>(p.parser.facts().joins);
                     all.append(entry);
                 }
                 return all;
             })
        .def("counts",
             [](PyParser& p) {
                 nb::dict counts;
                 for (std::size_t i = 0; i < parse::COUNT_NAMES.size(); ++i) counts[parse::COUNT_NAMES[i]] = p.parser.counts()[i];
                 return counts;
             })
        .def_prop_ro("seen_seq", [](PyParser& p) { return p.parser.seen_seq(); });

    nb::class_<PyDecoder>(m, "Decoder")
        .def(nb::init<nb::handle, int>(), "shape"_a, "rule"_a = 0)
        .def("decode", &PyDecoder::decode, "frame"_a, "symbol"_a = "", "(\"ok\" or what is wrong, events as dicts)")
        .def("time", &PyDecoder::time, "frames"_a, "repeat"_a, "(best time in ns of a run over all frames, levels in them)");

    m.def(
        "decimal",
        [](nb::bytes text) {
            parse::Decimal value;
            const parse::Number result = parse::decimal_of(text.c_str(), text.c_str() + text.size(), value);
            if (result == parse::Number::syntax) throw std::invalid_argument("no number");
            if (result == parse::Number::range) throw std::out_of_range("a number that does not fit");
            return PyDecoder::number(value);
        },
        "text"_a, "(mantissa, decimals) of a number's text. ValueError: it is none; IndexError: it does not fit.");
    m.def(
        "rescale",
        [](std::uint64_t mantissa, std::uint8_t decimals, std::uint8_t scale) -> nb::object {
            const parse::Fit fit = scale > parse::SCALE_MAX ? parse::Fit::range : parse::to_scale(mantissa, decimals, scale);
            if (fit == parse::Fit::ok) return nb::int_(mantissa);
            return nb::str(fit == parse::Fit::finer ? "finer" : "range");
        },
        "mantissa"_a, "decimals"_a, "scale"_a, "The mantissa at another scale, or \"finer\" or \"range\" if there is none.");
    m.attr("NESTING_MAX") = parse::NESTING_MAX;
    m.attr("NUMBER_MAX_CHARS") = parse::NUMBER_MAX_CHARS;
}
