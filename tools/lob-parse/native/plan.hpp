// plan.hpp - a venue's shape (shared/lob/venues/shape.py), compiled: nodes with keys, and rules.
//
// Looking up a key costs one load and one compare if it is the one that came next last time: a key of up to seven
// bytes is compared together with its closing quote as one masked word, a longer one by its first eight bytes and
// then the rest.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "scan.hpp"

namespace lob::parse {

// What a scope can hold. A bit of Scope::has and Scope::bad each.
enum class Field : std::uint8_t {
    none = 0,
    symbol,
    first_seq,
    last_seq,
    prev_seq,
    checksum,
    bid_price,  // the six decimals stand together, in this order
    bid_qty,
    ask_price,
    ask_qty,
    price,
    qty,
    trade_id,
    buyer_is_maker,
    taker_side,
    exch_time,
    levels,
    tag,  // the first of TAGS_MAX
};
inline constexpr unsigned TAGS_MAX = 8;
inline constexpr unsigned DECIMALS = 6;

constexpr std::uint32_t bit(Field field, unsigned offset = 0) { return 1u << (static_cast<unsigned>(field) + offset); }
static_assert(static_cast<unsigned>(Field::tag) + TAGS_MAX <= 32);

enum class Kind : std::uint8_t { none, snapshot, diff, trade, bbo, ignore };
enum class TimeUnit : std::uint8_t { s, ms, us, ns, rfc3339 };

inline constexpr std::uint32_t NO_NODE = 0xFFFFFFFFu;
inline constexpr std::uint8_t BOTH_SIDES = 2;

// What the scalar behind a key means.
struct Scalar {
    Field field = Field::none;
    std::uint8_t tag = 0;
    TimeUnit unit = TimeUnit::ms;
    std::string buy, sell;
};

struct Key {
    std::string name;
    std::uint64_t head = 0;  // its first bytes, with the closing quote if that is among them
    std::uint64_t mask = 0;
    std::uint32_t node = NO_NODE;  // what an object or array behind it is
    Scalar scalar;

    explicit Key(std::string text) : name(std::move(text)) {
        const std::string quoted = name + '"';
        const std::size_t bytes = std::min<std::size_t>(quoted.size(), 8);
        std::memcpy(&head, quoted.data(), bytes);
        mask = bytes == 8 ? ~0ull : (1ull << (8 * bytes)) - 1;
    }

    // Whether the text behind the opening quote is this key and its closing quote; `word` holds its first 8 bytes.
    bool matches(std::uint64_t word, const char* at, const char* end) const {
        if ((word & mask) != head) return false;
        const std::size_t size = name.size();
        if (size < 8) return true;
        return static_cast<std::size_t>(end - at) > size && at[size] == '"' && std::memcmp(at + 8, name.data() + 8, size - 8) == 0;
    }
};

enum class NodeKind : std::uint8_t { object, each, pairs, level_objects };

struct Node {
    NodeKind kind = NodeKind::object;
    bool scope = false;              // object: opens a scope
    std::uint8_t side = BOTH_SIDES;  // levels: 0 bids, 1 asks
    std::uint32_t item = NO_NODE;    // each: its objects
    std::vector<Key> keys;           // object: any; level_objects: price, quantity, and perhaps side
    std::string bid, ask;            // level_objects: texts of the side
    mutable std::vector<std::uint8_t> next;  // after key i-1 came key next[i]; [0]: the first one

    static constexpr std::size_t KEYS_MAX = 32;
};

struct TagTest {
    std::uint8_t tag = 0;
    bool absent = false;
    std::vector<std::string> values;
};

struct Rule {
    Kind kind = Kind::none;
    std::vector<TagTest> when;
    std::uint32_t has = 0;
};

struct Plan {
    std::vector<Node> nodes;
    std::uint32_t root = NO_NODE;
    std::vector<Rule> rules;
    std::vector<std::string> tags;

    std::uint32_t add(Node node) {
        if (node.keys.size() > Node::KEYS_MAX)
            throw std::invalid_argument("an object of the shape has more than " + std::to_string(Node::KEYS_MAX) + " keys");
        node.next.resize(node.keys.size() + 1);
        for (std::size_t i = 0; i < node.next.size(); ++i)
            node.next[i] = static_cast<std::uint8_t>(i < node.keys.size() ? i : 0);
        nodes.push_back(std::move(node));
        return static_cast<std::uint32_t>(nodes.size() - 1);
    }

    std::uint8_t tag(const std::string& name) {
        for (std::size_t i = 0; i < tags.size(); ++i)
            if (tags[i] == name) return static_cast<std::uint8_t>(i);
        if (tags.size() == TAGS_MAX) throw std::invalid_argument("more than 8 tags; the ninth is '" + name + "'");
        tags.push_back(name);
        return static_cast<std::uint8_t>(tags.size() - 1);
    }
};

}  // namespace lob::parse
