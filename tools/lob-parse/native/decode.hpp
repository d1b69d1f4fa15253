// decode.hpp - walks one message by a plan: text -> scopes with fields (scopes.hpp) and levels -> messages (message.hpp).
//
// One pass over the text. Levels go to scratch memory that is kept from message to message, so nothing is allocated
// once the largest message has been seen.
//
// Strict: the whole text is checked, also what is skipped. A key that the shape names may stand once in an object.
#pragma once

#include <string_view>
#include <vector>

#include "message.hpp"
#include "plan.hpp"
#include "scopes.hpp"

namespace lob::parse {

struct RawLevel {
    std::uint64_t price;
    std::uint64_t qty;
    std::uint8_t price_decimals;
    std::uint8_t qty_decimals;
    bool price_negative;
};

// One array of levels: parts of the two scratch vectors.
struct Segment {
    std::uint32_t begin[2];
    std::uint32_t end[2];
    std::uint32_t next;
};

class Decoder {
public:
    // Reads a whole message. False: it is no JSON that we take; error() says why.
    bool read(const Plan& plan, const char* text, std::size_t size) {
        plan_ = &plan;
        begin_ = text;
        end_ = text + size;
        scopes_.clear();
        segments_.clear();
        count_[0] = count_[1] = 0;
        arena_used_ = 0;
        error_ = Bad::none;
        const char* at = skip_space(begin_, end_);
        if (at == end_) return fail();
        if (*at == '{') {
            scopes_.open(NO_INDEX);
            at = object(plan.nodes[plan.root], at + 1, 0, 1);
        } else {
            at = skip_value(at, end_, 0);
        }
        if (at == nullptr || skip_space(at, end_) != end_) return fail();
        return true;
    }
    Bad error() const { return error_; }

    const Scopes& scopes() const { return scopes_; }
    // The first rule that matches a scope; Kind::none: no rule does.
    Kind kind_of(std::uint32_t scope) const { return MessageReader(scopes_).kind_of(plan_->rules, scope); }
    // What a scope of that kind says; `symbol`: of the message if the text has none. False: see error().
    bool message(std::uint32_t scope, Kind kind, SequenceRule rule, std::string_view symbol, Message& out) {
        MessageReader reader(scopes_);
        return reader.read(scope, kind, rule, symbol, out) || fail(reader.error());
    }

    // How many levels a scope has on a side.
    std::uint32_t level_count(std::uint32_t scope, unsigned side) const {
        std::uint32_t count = 0;
        for (std::uint32_t s = scopes_[scope].first_segment; s != NO_INDEX; s = segments_[s].next)
            count += segments_[s].end[side] - segments_[s].begin[side];
        return count;
    }
    // Calls `visit(levels, count)` for each contiguous part of a side; the levels may be changed.
    template <class Visit>
    bool each_part(std::uint32_t scope, unsigned side, Visit&& visit) {
        for (std::uint32_t s = scopes_[scope].first_segment; s != NO_INDEX; s = segments_[s].next) {
            const Segment& segment = segments_[s];
            const std::uint32_t count = segment.end[side] - segment.begin[side];
            if (count != 0 && !visit(levels_[side].data() + segment.begin[side], count)) return false;
        }
        return true;
    }

private:
    // --- the walk ------------------------------------------------------------------------------------------

    bool fail(Bad why = Bad::json) {
        if (error_ == Bad::none) error_ = why;
        return false;
    }

    std::string_view text(const char* at, const char* end, bool escaped) {
        if (!escaped) return {at, static_cast<std::size_t>(end - at)};
        const auto size = static_cast<std::size_t>(end_ - begin_);  // all strings of a message are shorter than it
        if (arena_used_ == 0 && arena_.size() < size) arena_.resize(size);  // never later: views would dangle
        char* const to = arena_.data() + arena_used_;
        const char* const to_end = unescape(at, end, to);
        arena_used_ += static_cast<std::size_t>(to_end - to);
        return {to, static_cast<std::size_t>(to_end - to)};
    }

    // Behind an opening quote: which key it is (null: none of ours), and `at` moves behind the closing quote.
    const Key* find_key(const Node& node, const char*& at, unsigned& turn) {
        if (end_ - at >= 8) [[likely]] {
            const std::uint64_t word = load8(at);
            if (!node.keys.empty()) {
                const unsigned guess = node.next[turn];
                const Key& key = node.keys[guess];
                if (key.matches(word, at, end_)) [[likely]] {
                    turn = guess + 1;
                    at += key.name.size() + 1;
                    return &key;
                }
            }
            for (std::size_t i = 0; i < node.keys.size(); ++i) {
                const Key& key = node.keys[i];
                if (key.matches(word, at, end_)) {
                    node.next[turn] = static_cast<std::uint8_t>(i);
                    turn = static_cast<unsigned>(i + 1);
                    at += key.name.size() + 1;
                    return &key;
                }
            }
        }
        bool escaped = false;
        const char* const close = scan_string(at, end_, escaped);
        if (close == nullptr) {
            at = nullptr;
            return nullptr;
        }
        const bool near_end = end_ - at < 8;
        const char* const begin = at;
        at = close + 1;
        if (!escaped && !near_end) return nullptr;
        const std::string_view name = text(begin, close, escaped);
        for (std::size_t i = 0; i < node.keys.size(); ++i)
            if (node.keys[i].name == name) {
                turn = static_cast<unsigned>(i + 1);
                return &node.keys[i];
            }
        return nullptr;
    }

    // From behind a key to its value.
    const char* to_value(const char* at) const {
        if (at == end_) return nullptr;
        if (*at != ':') {
            at = skip_space(at, end_);
            if (at == end_ || *at != ':') return nullptr;
        }
        ++at;
        if (at != end_ && static_cast<unsigned char>(*at) <= ' ') at = skip_space(at, end_);
        return at == end_ ? nullptr : at;
    }

    // `at` is behind the brace; `depth` counts this object.
    const char* object(const Node& node, const char* at, std::uint32_t scope, unsigned depth) {
        if (depth > NESTING_MAX) return nullptr;
        at = skip_space(at, end_);
        if (at == end_) return nullptr;
        if (*at == '}') return at + 1;
        std::uint32_t seen = 0;
        unsigned turn = 0;
        for (;;) {
            if (at == end_ || *at != '"') return nullptr;
            ++at;
            const Key* key = find_key(node, at, turn);
            if (at == nullptr || (at = to_value(at)) == nullptr) return nullptr;
            if (key == nullptr) {
                at = skip_value(at, end_, depth);
            } else {
                const std::uint32_t mark = 1u << (key - node.keys.data());
                if (seen & mark) return nullptr;
                seen |= mark;
                at = value(*key, at, scope, depth);
            }
            if (at == nullptr) return nullptr;
            if (at != end_ && *at == ',' && end_ - at > 1 && at[1] == '"') [[likely]] {
                ++at;
                continue;
            }
            at = skip_space(at, end_);
            if (at == end_) return nullptr;
            if (*at == '}') return at + 1;
            if (*at != ',') return nullptr;
            at = skip_space(at + 1, end_);
        }
    }

    const char* value(const Key& key, const char* at, std::uint32_t scope, unsigned depth) {
        switch (*at) {
            case '{': {
                if (key.node == NO_NODE) break;
                const Node& node = plan_->nodes[key.node];
                if (node.kind != NodeKind::object) {
                    no_levels(key, scope);
                    break;
                }
                return object(node, at + 1, node.scope ? scopes_.open(scope) : scope, depth + 1);
            }
            case '[': {
                if (key.node == NO_NODE) break;
                const Node& node = plan_->nodes[key.node];
                if (node.kind == NodeKind::each) return each(node, at + 1, scope, depth + 1);
                if (node.kind == NodeKind::object) break;
                return levels(node, at + 1, scope, depth + 1);
            }
            case '"': {
                if (is_decimal(key.scalar.field) && end_ - at > FAST_DECIMAL_BYTES + 1) {
                    Decimal& number = scopes_[scope].decimals[decimal_index(key.scalar.field)];
                    const char* const p = fast_decimal(at + 1, number.mantissa, number.decimals);
                    if (p != nullptr && *p == '"') [[likely]] {
                        number.negative = false;
                        scopes_[scope].mark(key.scalar.field, true);
                        return p + 1;
                    }
                }
                bool escaped = false;
                const char* const close = scan_string(at + 1, end_, escaped);
                if (close == nullptr) return nullptr;
                if (key.scalar.field != Field::none) scopes_[scope].take_text(key.scalar, text(at + 1, close, escaped));
                else no_levels(key, scope);
                return close + 1;
            }
            case 't':
            case 'f': {
                if (key.scalar.field == Field::buyer_is_maker) {
                    scopes_[scope].has |= bit(Field::buyer_is_maker);
                    scopes_[scope].buyer_is_maker = *at == 't';
                } else {
                    no_levels(key, scope);
                }
                break;
            }
            case 'n': break;
            default: {
                if (key.scalar.field == Field::none) {
                    no_levels(key, scope);
                    break;
                }
                if (!is_decimal(key.scalar.field) && end_ - at > FAST_UNSIGNED_BYTES) {
                    std::uint64_t integer = 0;
                    const char* const p = fast_unsigned(at, integer);
                    if (p != nullptr && (*p == ',' || *p == '}' || *p == ']')) [[likely]] {
                        scopes_[scope].take_unsigned(key.scalar, integer, true);
                        return p;
                    }
                }
                Decimal number;
                Number result{};
                const char* const after = scan_number(at, end_, number, result);
                if (after == nullptr) return nullptr;
                scopes_[scope].take_number(key.scalar, {at, static_cast<std::size_t>(after - at)}, number, result);
                return after;
            }
        }
        return skip_value(at, end_, depth);
    }

    // Something else stands where the shape wants levels (null may: an empty side). To skip it would lose them unseen.
    void no_levels(const Key& key, std::uint32_t scope_index) {
        if (key.node == NO_NODE) return;
        const NodeKind kind = plan_->nodes[key.node].kind;
        if (kind != NodeKind::pairs && kind != NodeKind::level_objects) return;
        FieldScope& scope = scopes_[scope_index];
        scope.has |= bit(Field::levels);
        if (scope.levels_bad == Bad::none) scope.levels_bad = Bad::field;
    }

    const char* each(const Node& node, const char* at, std::uint32_t scope, unsigned depth) {
        if (depth > NESTING_MAX) return nullptr;
        const Node& item = plan_->nodes[node.item];
        at = skip_space(at, end_);
        if (at == end_) return nullptr;
        if (*at == ']') return at + 1;
        for (;;) {
            if (at == end_) return nullptr;
            if (*at == '{') at = object(item, at + 1, item.scope ? scopes_.open(scope) : scope, depth + 1);
            else at = skip_value(at, end_, depth);
            if (at == nullptr) return nullptr;
            at = skip_space(at, end_);
            if (at == end_) return nullptr;
            if (*at == ']') return at + 1;
            if (*at != ',') return nullptr;
            at = skip_space(at + 1, end_);
        }
    }

    // --- levels ----------------------------------------------------------------------------------------------

    RawLevel* next_level(unsigned side) {
        auto& levels = levels_[side];
        if (count_[side] == levels.size()) levels.resize(levels.empty() ? 1024 : 2 * levels.size());
        return levels.data() + count_[side]++;
    }

    const char* levels(const Node& node, const char* at, std::uint32_t scope_index, unsigned depth) {
        if (depth > NESTING_MAX) return nullptr;
        Segment segment{{count_[0], count_[1]}, {0, 0}, NO_INDEX};
        Bad trouble = Bad::none;
        at = skip_space(at, end_);
        if (at == end_) return nullptr;
        if (*at == ']') ++at;
        else if (node.kind == NodeKind::pairs) at = pairs(node, at, trouble, depth);
        else at = level_objects(node, at, trouble, depth);
        if (at == nullptr) return nullptr;
        segment.end[0] = count_[0];
        segment.end[1] = count_[1];
        const auto index = static_cast<std::uint32_t>(segments_.size());
        segments_.push_back(segment);
        FieldScope& scope = scopes_[scope_index];
        if (scope.first_segment == NO_INDEX) scope.first_segment = index;
        else segments_[scope.last_segment].next = index;
        scope.last_segment = index;
        scope.has |= bit(Field::levels);
        if (scope.levels_bad == Bad::none) scope.levels_bad = trouble;
        return at;
    }

    // `[["61737.63000000","0.00000000"],...]`, from the first item; returns behind the closing bracket.
    const char* pairs(const Node& node, const char* at, Bad& trouble, unsigned depth) {
        constexpr std::ptrdiff_t FAST_BYTES = 2 + FAST_DECIMAL_BYTES + 3 + FAST_DECIMAL_BYTES + 3;
        const unsigned side = node.side;
        for (;;) {
            while (end_ - at >= FAST_BYTES && at[0] == '[' && at[1] == '"') {
                RawLevel* level = next_level(side);
                const char* p = fast_decimal(at + 2, level->price, level->price_decimals);
                if (p == nullptr || p[0] != '"' || p[1] != ',' || p[2] != '"') [[unlikely]] {
                    --count_[side];
                    break;
                }
                p = fast_decimal(p + 3, level->qty, level->qty_decimals);
                if (p == nullptr || p[0] != '"' || p[1] != ']') [[unlikely]] {
                    --count_[side];
                    break;
                }
                level->price_negative = false;
                if (p[2] == ',') [[likely]] {
                    at = p + 3;
                    continue;
                }
                if (p[2] == ']') return p + 3;
                at = p + 2;
                goto behind;
            }
            at = skip_space(at, end_);
            if (at == end_) return nullptr;
            at = plain_pair(side, at, trouble, depth);
            if (at == nullptr) return nullptr;
        behind:
            at = skip_space(at, end_);
            if (at == end_) return nullptr;
            if (*at == ']') return at + 1;
            if (*at != ',') return nullptr;
            ++at;
        }
    }

    // One item of an array of pairs, whatever it looks like.
    const char* plain_pair(unsigned side, const char* at, Bad& trouble, unsigned depth) {
        if (*at != '[') {
            if (trouble == Bad::none) trouble = Bad::field;
            return skip_value(at, end_, depth);
        }
        if (depth + 1 > NESTING_MAX) return nullptr;
        Decimal numbers[2];
        unsigned count = 0;
        at = skip_space(at + 1, end_);
        if (at == end_) return nullptr;
        if (*at != ']') {
            for (;;) {
                if (at == end_) return nullptr;
                if (count < 2) at = level_number(at, numbers[count], trouble, depth + 1);
                else at = skip_value(at, end_, depth + 1);
                if (at == nullptr) return nullptr;
                ++count;
                at = skip_space(at, end_);
                if (at == end_) return nullptr;
                if (*at == ']') break;
                if (*at != ',') return nullptr;
                at = skip_space(at + 1, end_);
            }
        }
        if (count < 2 && trouble == Bad::none) trouble = Bad::field;
        store(side, numbers[0], numbers[1], trouble);
        return at + 1;
    }

    void store(unsigned side, const Decimal& price, const Decimal& qty, Bad& trouble) {
        if (qty.negative && trouble == Bad::none) trouble = Bad::number;
        if (trouble != Bad::none) return;
        *next_level(side) = RawLevel{price.mantissa, qty.mantissa, price.decimals, qty.decimals, price.negative};
    }

    // A price or quantity of a level, bare or in quotes.
    const char* level_number(const char* at, Decimal& out, Bad& trouble, unsigned depth) {
        Number result = Number::syntax;
        if (*at == '"') {
            if (end_ - at > FAST_DECIMAL_BYTES + 1) {
                const char* const p = fast_decimal(at + 1, out.mantissa, out.decimals);
                if (p != nullptr && *p == '"') {
                    out.negative = false;
                    return p + 1;
                }
            }
            bool escaped = false;
            const char* const close = scan_string(at + 1, end_, escaped);
            if (close == nullptr) return nullptr;
            const std::string_view digits = text(at + 1, close, escaped);
            result = decimal_of(digits.data(), digits.data() + digits.size(), out);
            at = close + 1;
        } else if (*at == '-' || (*at >= '0' && *at <= '9')) {
            if (end_ - at > FAST_DECIMAL_BYTES) {
                const char* const p = fast_decimal(at, out.mantissa, out.decimals);
                if (p != nullptr && (*p == ',' || *p == '}' || *p == ']')) {
                    out.negative = false;
                    return p;
                }
            }
            at = scan_number(at, end_, out, result);
        } else {
            at = skip_value(at, end_, depth);
            if (trouble == Bad::none) trouble = Bad::field;
            return at;
        }
        if (result != Number::ok && trouble == Bad::none) trouble = result == Number::range ? Bad::range : Bad::number;
        return at;
    }

    // `[{"price":63381.0,"qty":0.00000000},...]`, from the first item.
    const char* level_objects(const Node& node, const char* at, Bad& trouble, unsigned depth) {
        for (;;) {
            at = skip_space(at, end_);
            if (at == end_) return nullptr;
            if (*at == '{') {
                at = level_object(node, at + 1, trouble, depth + 1);
            } else {
                if (trouble == Bad::none) trouble = Bad::field;
                at = skip_value(at, end_, depth);
            }
            if (at == nullptr) return nullptr;
            at = skip_space(at, end_);
            if (at == end_) return nullptr;
            if (*at == ']') return at + 1;
            if (*at != ',') return nullptr;
            ++at;
        }
    }

    const char* level_object(const Node& node, const char* at, Bad& trouble, unsigned depth) {
        if (depth > NESTING_MAX) return nullptr;
        Decimal price, qty;
        unsigned side = node.side;
        unsigned seen = 0;
        unsigned turn = 0;
        at = skip_space(at, end_);
        if (at == end_) return nullptr;
        if (*at == '}') {
            if (trouble == Bad::none) trouble = Bad::field;
            return at + 1;
        }
        for (;;) {
            if (at == end_ || *at != '"') return nullptr;
            ++at;
            const Key* key = find_key(node, at, turn);
            if (at == nullptr || (at = to_value(at)) == nullptr) return nullptr;
            if (key == nullptr) {
                at = skip_value(at, end_, depth);
            } else {
                const auto which = static_cast<unsigned>(key - node.keys.data());
                if (seen & (1u << which)) return nullptr;
                seen |= 1u << which;
                if (which < 2) {
                    at = level_number(at, which == 0 ? price : qty, trouble, depth);
                } else if (*at == '"') {
                    bool escaped = false;
                    const char* const close = scan_string(at + 1, end_, escaped);
                    if (close == nullptr) return nullptr;
                    const std::string_view name = text(at + 1, close, escaped);
                    side = name == node.bid ? 0 : name == node.ask ? 1 : BOTH_SIDES;
                    at = close + 1;
                } else {
                    at = skip_value(at, end_, depth);
                }
            }
            if (at == nullptr) return nullptr;
            if (at != end_ && *at == ',' && end_ - at > 1 && at[1] == '"') [[likely]] {
                ++at;
                continue;
            }
            at = skip_space(at, end_);
            if (at == end_) return nullptr;
            if (*at == '}') break;
            if (*at != ',') return nullptr;
            at = skip_space(at + 1, end_);
        }
        if (((seen & 3) != 3 || side == BOTH_SIDES) && trouble == Bad::none) trouble = Bad::field;
        if (trouble == Bad::none) store(side, price, qty, trouble);
        return at + 1;
    }

    const Plan* plan_ = nullptr;
    const char* begin_ = nullptr;
    const char* end_ = nullptr;
    Scopes scopes_;
    std::vector<Segment> segments_;
    std::vector<RawLevel> levels_[2];
    std::uint32_t count_[2] = {0, 0};
    std::vector<char> arena_;
    std::size_t arena_used_ = 0;
    Bad error_ = Bad::none;
};

}  // namespace lob::parse
