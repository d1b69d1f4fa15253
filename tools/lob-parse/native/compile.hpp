// compile.hpp - the Python objects of lob.venues.shape -> a Plan.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "plan.hpp"

namespace lob::parse {

namespace nb = nanobind;

class Compiler {
public:
    static Plan compile(nb::handle shape) {
        Compiler compiler;
        compiler.plan_.root = compiler.object(shape.attr("root"), true);
        for (nb::handle rule : shape.attr("rules")) compiler.plan_.rules.push_back(compiler.rule(rule));
        return std::move(compiler.plan_);
    }

private:
    static std::string text(nb::handle object, const char* name) { return nb::cast<std::string>(object.attr(name)); }

    static nb::dict dict_of(nb::handle mapping) {
        return nb::cast<nb::dict>(nb::handle(reinterpret_cast<PyObject*>(&PyDict_Type))(mapping));
    }

    std::uint32_t object(nb::handle shape, bool root) {
        Node node;
        node.kind = NodeKind::object;
        node.scope = root || nb::cast<bool>(shape.attr("scope"));
        const nb::dict keys = dict_of(shape.attr("keys"));
        for (auto [name, meaning] : keys) {
            Key key(nb::cast<std::string>(name));
            if (nb::isinstance<nb::tuple>(meaning)) {
                for (nb::handle each : nb::cast<nb::tuple>(meaning)) take(key, each);
            } else {
                take(key, meaning);
            }
            node.keys.push_back(std::move(key));
        }
        return plan_.add(std::move(node));
    }

    // One meaning of a key: a container or a scalar; it may have one of each.
    void take(Key& key, nb::handle meaning) {
        const std::string op = text(meaning, "op");
        if (op == "object" || op == "each" || op == "levels") {
            if (key.node != NO_NODE) throw std::invalid_argument("key '" + key.name + "' has two containers");
            if (op == "object") key.node = object(meaning, false);
            else if (op == "each") key.node = each(meaning);
            else key.node = levels(meaning);
            return;
        }
        if (key.scalar.field != Field::none) throw std::invalid_argument("key '" + key.name + "' has two scalars");
        key.scalar = scalar(op, meaning);
    }

    std::uint32_t each(nb::handle shape) {
        Node node;
        node.kind = NodeKind::each;
        node.item = object(shape.attr("item"), false);
        return plan_.add(std::move(node));
    }

    std::uint32_t levels(nb::handle shape) {
        Node node;
        const nb::object side = shape.attr("side");
        node.side = side.is_none() ? BOTH_SIDES : nb::cast<std::uint8_t>(side);
        const nb::object item = shape.attr("item");
        if (text(item, "op") == "pair") {
            if (node.side == BOTH_SIDES) throw std::invalid_argument("levels in pairs do not tell their side: give one");
            node.kind = NodeKind::pairs;
            return plan_.add(std::move(node));
        }
        node.kind = NodeKind::level_objects;
        node.keys.emplace_back(text(item, "price"));
        node.keys.emplace_back(text(item, "qty"));
        const nb::object side_key = item.attr("side");
        if (!side_key.is_none()) node.keys.emplace_back(nb::cast<std::string>(side_key));
        else if (node.side == BOTH_SIDES) throw std::invalid_argument("levels without a side need a key that tells it");
        node.bid = text(item, "bid");
        node.ask = text(item, "ask");
        return plan_.add(std::move(node));
    }

    Scalar scalar(const std::string& op, nb::handle meaning) {
        Scalar scalar;
        if (op == "tag") {
            scalar.field = Field::tag;
            scalar.tag = plan_.tag(text(meaning, "name"));
        } else if (op == "exch_time") {
            scalar.field = Field::exch_time;
            const std::string unit = text(meaning, "unit");
            constexpr const char* UNITS[] = {"s", "ms", "us", "ns", "rfc3339"};
            std::size_t i = 0;
            while (i < std::size(UNITS) && unit != UNITS[i]) ++i;
            if (i == std::size(UNITS)) throw std::invalid_argument("no unit of time '" + unit + "'");
            scalar.unit = static_cast<TimeUnit>(i);
        } else if (op == "taker_side") {
            scalar.field = Field::taker_side;
            scalar.buy = text(meaning, "buy");
            scalar.sell = text(meaning, "sell");
        } else {
            scalar.field = field(op);
        }
        return scalar;
    }

    static Field field(const std::string& op) {
        constexpr const char* NAMES[] = {"symbol",  "first_seq", "last_seq", "prev_seq", "checksum", "bid_price",      "bid_qty",    "ask_price",
                                         "ask_qty", "price",     "qty",      "trade_id", "buyer_is_maker", "taker_side", "exch_time", "levels"};
        for (std::size_t i = 0; i < std::size(NAMES); ++i)
            if (op == NAMES[i]) return static_cast<Field>(i + 1);
        throw std::invalid_argument("no field '" + op + "'");
    }

    Rule rule(nb::handle shape) {
        Rule rule;
        const std::string kind = text(shape, "kind");
        constexpr const char* KINDS[] = {"snapshot", "diff", "trade", "bbo", "ignore"};
        for (std::size_t i = 0; i < std::size(KINDS); ++i)
            if (kind == KINDS[i]) rule.kind = static_cast<Kind>(i + 1);
        if (rule.kind == Kind::none) throw std::invalid_argument("no kind of message '" + kind + "'");
        const nb::dict when = dict_of(shape.attr("when"));
        for (auto [name, wanted] : when) {
            TagTest test;
            test.tag = plan_.tag(nb::cast<std::string>(name));
            if (nb::isinstance<nb::str>(wanted)) {
                test.values.push_back(nb::cast<std::string>(wanted));
            } else if (nb::isinstance<nb::tuple>(wanted)) {
                for (nb::handle value : nb::cast<nb::tuple>(wanted)) test.values.push_back(nb::cast<std::string>(value));
            } else {
                test.absent = true;  // shape.ABSENT
            }
            rule.when.push_back(std::move(test));
        }
        for (nb::handle name : shape.attr("has")) rule.has |= bit(field(nb::cast<std::string>(name)));
        return rule;
    }

    Plan plan_;
};

}  // namespace lob::parse
