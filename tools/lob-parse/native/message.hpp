// message.hpp - what a scope says: of which kind it is, and its fields, also those of the scopes around it.
//
// Asked when the whole text has been read, because a key may stand before or after what it needs. A field that cannot be
// read spoils the message only if the message needs it: `p` is a price in a trade and may be anything in a message that
// is of no interest.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "layout.hpp"
#include "plan.hpp"
#include "scopes.hpp"

namespace lob::parse {

// A scope that a rule has named, with what it takes from the scopes around it.
struct Message {
    Kind kind = Kind::none;
    std::uint32_t scope = 0;
    std::string_view symbol;
    std::uint64_t first_seq = 0, last_seq = 0, prev_seq = 0, trade_id = 0;
    std::uint32_t checksum = 0;
    bool has_checksum = false;
    TakerSide taker_side = TakerSide::unknown;
    std::int64_t exch_ns = 0;
    Decimal decimals[DECIMALS];  // bid_price, bid_qty, ask_price, ask_qty, price, qty
};

class MessageReader {
public:
    explicit MessageReader(const Scopes& scopes) : scopes_(scopes) {}

    Bad error() const { return error_; }

    // The first rule that matches a scope; Kind::none: no rule does.
    Kind kind_of(const std::vector<Rule>& rules, std::uint32_t scope) const {
        for (const Rule& rule : rules)
            if ((scopes_[scope].has & rule.has) == rule.has && tags_match(rule, scope)) return rule.kind;
        return Kind::none;
    }

    // What a scope of that kind says; `symbol`: of the message if the text has none. False: see error().
    bool read(std::uint32_t index, Kind kind, SequenceRule rule, std::string_view symbol, Message& out) {
        const FieldScope& scope = scopes_[index];
        out = Message{};
        out.kind = kind;
        out.scope = index;
        const FieldScope* from = scopes_.holder(index, Field::symbol);
        out.symbol = from != nullptr ? from->symbol : symbol;
        if (out.symbol.empty() || out.symbol.size() >= sizeof(InstrumentBody::symbol)) return fail(Bad::symbol);
        if (!time(index, out)) return false;
        if (kind == Kind::snapshot || kind == Kind::diff) {
            if (scope.levels_bad != Bad::none) return fail(scope.levels_bad);
            const bool diff = kind == Kind::diff;
            const bool first = diff && rule == SequenceRule::range;
            const bool prev = diff && rule == SequenceRule::chain;
            if (!number(index, Field::last_seq, &FieldScope::last_seq, rule != SequenceRule::none, out.last_seq)) return false;
            out.first_seq = out.last_seq;
            if (diff && !number(index, Field::first_seq, &FieldScope::first_seq, first, out.first_seq)) return false;
            if (diff && !number(index, Field::prev_seq, &FieldScope::prev_seq, prev, out.prev_seq)) return false;
            if (rule == SequenceRule::step && out.last_seq != 0) out.prev_seq = out.last_seq - 1;
            if (const FieldScope* sum = scopes_.holder(index, Field::checksum)) {
                if (sum->bad & bit(Field::checksum)) return fail(Bad::number);
                out.checksum = sum->checksum;
                out.has_checksum = true;
            }
            return true;
        }
        if (kind == Kind::trade) {
            if (!decimal(index, Field::price, true, out) || !decimal(index, Field::qty, true, out)) return false;
            if (!number(index, Field::trade_id, &FieldScope::trade_id, false, out.trade_id)) return false;
            if (const FieldScope* side = scopes_.holder(index, Field::taker_side)) {
                if (side->bad & bit(Field::taker_side)) return fail(Bad::field);
                out.taker_side = side->taker_side;
            } else if (const FieldScope* maker = scopes_.holder(index, Field::buyer_is_maker)) {
                out.taker_side = maker->buyer_is_maker ? TakerSide::sell : TakerSide::buy;
            }
            return true;
        }
        if (!number(index, Field::last_seq, &FieldScope::last_seq, false, out.last_seq)) return false;
        for (const Field field : {Field::bid_price, Field::bid_qty, Field::ask_price, Field::ask_qty})
            if (!decimal(index, field, false, out)) return false;
        // Without a price there is no such side.
        if (scopes_.holder(index, Field::bid_price) == nullptr) out.decimals[1] = Decimal{};
        if (scopes_.holder(index, Field::ask_price) == nullptr) out.decimals[3] = Decimal{};
        return true;
    }

private:
    bool fail(Bad why) {
        error_ = why;
        return false;
    }

    bool tags_match(const Rule& rule, std::uint32_t index) const {
        for (const TagTest& test : rule.when) {
            const FieldScope* from = scopes_.holder(index, Field::tag, test.tag);
            if (test.absent) {
                if (from != nullptr) return false;
                continue;
            }
            if (from == nullptr) return false;
            bool any = false;
            for (const std::string& value : test.values) any = any || from->tags[test.tag] == value;
            if (!any) return false;
        }
        return true;
    }

    bool number(std::uint32_t index, Field field, std::uint64_t FieldScope::*member, bool needed, std::uint64_t& out) {
        const FieldScope* from = scopes_.holder(index, field);
        if (from == nullptr) return needed ? fail(Bad::field) : true;
        if (from->bad & bit(field)) return fail(Bad::number);
        out = from->*member;
        return true;
    }

    bool decimal(std::uint32_t index, Field field, bool needed, Message& out) {
        const FieldScope* from = scopes_.holder(index, field);
        if (from == nullptr) return needed ? fail(Bad::field) : true;
        if (from->bad & bit(field)) return fail(Bad::number);
        const Decimal& value = from->decimals[decimal_index(field)];
        const bool qty = field == Field::bid_qty || field == Field::ask_qty || field == Field::qty;
        if (qty && value.negative) return fail(Bad::number);
        out.decimals[decimal_index(field)] = value;
        return true;
    }

    bool time(std::uint32_t index, Message& out) {
        const FieldScope* from = scopes_.holder(index, Field::exch_time);
        if (from == nullptr) return true;
        if (from->bad & bit(Field::exch_time)) return fail(Bad::time);
        out.exch_ns = from->exch_ns;
        return true;
    }

    const Scopes& scopes_;
    Bad error_ = Bad::none;
};

}  // namespace lob::parse
