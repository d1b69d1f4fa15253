// ladder.hpp - the price levels of one side.
//
// Shape      sorted chunks of at most CHUNK_LEVELS levels; prices apart from quantities, so a search touches
//            prices only. low[i] bounds chunk i from below and is searched without branches.
//
//              low       -inf      k1        k2             separators, one a chunk
//              chunk     [. . . .] [. . . ]  [. . . . . *]  * = best: the last level of the last chunk
//
// Order      a key is the price for bids and ~price for asks: a greater key is a better price on both sides, and
//            ~ has no overflow at the ends of int64, which unary minus has. The best level lies last, because
//            most changes are near it and a change moves only what lies behind it.
// Invariant  low[i] <= keys of chunk i < low[i+1]; no chunk is empty unless it is the only one; unused keys are
//            KEY_MAX, so a search always runs over CHUNK_LEVELS keys, unrolled.
// Memory     grows with the book and is kept; a steady book allocates nothing.
// Not for    negative quantities: what is not above zero removes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "layout.hpp"

namespace lob {

enum class Side : std::uint8_t { bid = 0, ask = 1 };

inline constexpr std::int64_t POWERS_OF_TEN[19] = {1,
                                                   10,
                                                   100,
                                                   1'000,
                                                   10'000,
                                                   100'000,
                                                   1'000'000,
                                                   10'000'000,
                                                   100'000'000,
                                                   1'000'000'000,
                                                   10'000'000'000,
                                                   100'000'000'000,
                                                   1'000'000'000'000,
                                                   10'000'000'000'000,
                                                   100'000'000'000'000,
                                                   1'000'000'000'000'000,
                                                   10'000'000'000'000'000,
                                                   100'000'000'000'000'000,
                                                   1'000'000'000'000'000'000};

// mantissa * 10^exponent, exact; false if it does not fit or, for a negative exponent, digits would be lost.
inline bool rescale(std::int64_t& mantissa, int exponent) noexcept {
    if (exponent == 0 || mantissa == 0) return true;
    if (exponent > 18 || exponent < -18) return false;
    if (exponent > 0) return !__builtin_mul_overflow(mantissa, POWERS_OF_TEN[exponent], &mantissa);
    if (mantissa % POWERS_OF_TEN[-exponent] != 0) return false;
    mantissa /= POWERS_OF_TEN[-exponent];
    return true;
}

class Ladder {
public:
    static constexpr std::uint32_t CHUNK_LEVELS = 64;
    static constexpr std::uint32_t MERGE_BELOW = CHUNK_LEVELS / 4;
    static constexpr std::uint32_t MERGED_MAX = CHUNK_LEVELS * 3 / 4;
    static constexpr std::uint32_t FILL = CHUNK_LEVELS * 3 / 4;  // of a chunk made from a snapshot
    static constexpr std::int64_t KEY_MAX = std::numeric_limits<std::int64_t>::max();
    static constexpr std::int64_t KEY_MIN = std::numeric_limits<std::int64_t>::min();

    explicit Ladder(Side side) : flip_(side == Side::bid ? 0 : -1) { clear(); }

    // The level's new quantity, 0 for none. Returns the quantity before, 0 if there was no such level.
    std::int64_t set(std::int64_t price, std::int64_t qty) {
        const std::int64_t key = price ^ flip_;
        const std::uint32_t at = chunk_of(key);
        return set_at(at, place_of(chunks_[slots_[at].chunk], key), key, qty);
    }

    // set() of all levels of a message in turn; calls with each price, its quantity before and after (negative: 0).
    // All are searched for before the first is set: searches wait for memory and for each other's comparisons, but not
    // for another search, so a core does several at once; found out one by one between changes they cost half as much again.
    template <class Call>
    void set_all(const Level* levels, std::uint32_t count, Call&& call) {
        for (std::uint32_t begin = 0; begin < count; begin += BATCH) {
            const std::uint32_t end = std::min(begin + BATCH, count);
            Place places[BATCH];
            for (std::uint32_t i = begin; i < end; ++i) places[i - begin].at = chunk_of(levels[i].price ^ flip_);
            for (std::uint32_t i = begin; i < end; ++i)
                places[i - begin].place = place_of(chunks_[slots_[places[i - begin].at].chunk], levels[i].price ^ flip_);
            const std::uint64_t shape = shape_;
            for (std::uint32_t i = begin; i < end; ++i) {
                const std::int64_t key = levels[i].price ^ flip_;
                const std::int64_t qty = std::max<std::int64_t>(levels[i].qty, 0);
                auto [at, place] = places[i - begin];
                if (shape != shape_) [[unlikely]] {
                    at = chunk_of(key);
                    place = place_of(chunks_[slots_[at].chunk], key);
                } else {  // a level set before it in the same chunk may have moved it
                    const std::int64_t* keys = chunks_[slots_[at].chunk].keys;
                    while (place > 0 && keys[place - 1] >= key) --place;
                    while (place < CHUNK_LEVELS && keys[place] < key) ++place;
                }
                call(levels[i].price, set_at(at, place, key, qty), qty);
            }
        }
    }

    // The quantity at a price, 0 for none.
    std::int64_t qty_at(std::int64_t price) const {
        const std::int64_t key = price ^ flip_;
        const Slot slot = slots_[chunk_of(key)];
        const Chunk& chunk = chunks_[slot.chunk];
        const std::uint32_t place = place_of(chunk, key);
        return place < slot.count && chunk.keys[place] == key ? chunk.qtys[place] : 0;
    }

    std::uint32_t size() const { return size_; }
    bool empty() const { return size_ == 0; }

    // The best level; {0, 0} of an empty side.
    Level best() const {
        if (size_ == 0) return {0, 0};
        return level(slots_.back(), slots_.back().count - 1);
    }

    // Larger is better, on both sides.
    std::int64_t rank(std::int64_t price) const { return price ^ flip_; }

    // Copies the best `n` levels, best first; returns how many there are.
    std::uint32_t top(std::uint32_t n, Level* out) const {
        std::uint32_t copied = 0;
        for (std::size_t i = slots_.size(); i-- > 0 && copied < n;)
            for (std::uint32_t j = slots_[i].count; j-- > 0 && copied < n;) out[copied++] = level(slots_[i], j);
        return copied;
    }

    // Calls with each level, best first.
    template <class Call>
    void for_each(Call&& call) const {
        for (std::size_t i = slots_.size(); i-- > 0;)
            for (std::uint32_t j = slots_[i].count; j-- > 0;) call(level(slots_[i], j));
    }

    void clear() {
        slots_.clear();
        low_.clear();
        free_.clear();
        for (std::uint32_t i = static_cast<std::uint32_t>(chunks_.size()); i-- > 0;) free_.push_back(i);
        append_chunk(KEY_MIN);
        size_ = 0;
    }

    // Replaces everything. Any order; a price that occurs twice has its last quantity; quantity 0 is no level.
    void assign(const Level* levels, std::uint32_t count) {
        std::vector<Level>& sorted = scratch_;  // price holds the key
        sorted.clear();
        bool falling = true;
        for (std::uint32_t i = 0; i < count; ++i) {
            const Level next{levels[i].price ^ flip_, levels[i].qty};
            if (!sorted.empty() && next.price >= sorted.back().price) falling = false;
            sorted.push_back(next);
        }
        if (falling) {
            std::reverse(sorted.begin(), sorted.end());
        } else {
            std::stable_sort(sorted.begin(), sorted.end(), [](const Level& a, const Level& b) { return a.price < b.price; });
        }
        clear();
        for (std::size_t i = 0; i < sorted.size(); ++i) {
            if (i + 1 < sorted.size() && sorted[i + 1].price == sorted[i].price) continue;
            if (sorted[i].qty <= 0) continue;
            if (slots_.back().count == FILL) append_chunk(sorted[i].price);
            Slot& slot = slots_.back();
            chunks_[slot.chunk].keys[slot.count] = sorted[i].price;
            chunks_[slot.chunk].qtys[slot.count] = sorted[i].qty;
            ++slot.count;
            ++size_;
        }
    }

    // Keeps the best `depth` levels and calls with each of the others.
    template <class Call>
    void truncate(std::uint32_t depth, Call&& call) {
        while (size_ > depth) {
            const Slot slot = slots_.front();
            const std::uint32_t cut = std::min(size_ - depth, slot.count);
            for (std::uint32_t j = 0; j < cut; ++j) call(level(slot, j));
            size_ -= cut;
            if (cut == slot.count && slots_.size() > 1) {
                erase_chunk(0);
                continue;
            }
            Chunk& chunk = chunks_[slot.chunk];
            const std::uint32_t left = slot.count - cut;
            std::memmove(chunk.keys, chunk.keys + cut, left * sizeof(std::int64_t));
            std::memmove(chunk.qtys, chunk.qtys + cut, left * sizeof(std::int64_t));
            std::fill(chunk.keys + left, chunk.keys + slot.count, KEY_MAX);
            slots_.front().count = left;
        }
    }

    // Every price times 10^price_exponent and every quantity times 10^qty_exponent. False, with nothing changed, if
    // one does not fit.
    bool rescale(int price_exponent, int qty_exponent) {
        bool fits = true;
        for_each([&](Level level) {
            fits = fits && lob::rescale(level.price, price_exponent) && lob::rescale(level.qty, qty_exponent);
        });
        if (!fits) return false;
        for (std::size_t i = 0; i < slots_.size(); ++i) {
            Chunk& chunk = chunks_[slots_[i].chunk];
            for (std::uint32_t j = 0; j < slots_[i].count; ++j) {
                std::int64_t price = chunk.keys[j] ^ flip_;
                lob::rescale(price, price_exponent);
                lob::rescale(chunk.qtys[j], qty_exponent);
                chunk.keys[j] = price ^ flip_;
            }
            if (i > 0) low_[i] = chunk.keys[0];
        }
        return true;
    }

    // Null if the invariants of the head hold, else the one that does not.
    const char* check() const {
        std::uint64_t levels = 0;
        if (slots_.size() != low_.size() || slots_.empty()) return "as many separators as chunks, at least one";
        if (low_[0] != KEY_MIN) return "the first chunk takes everything";
        if (free_.size() + slots_.size() != chunks_.size()) return "every chunk is in use or free";
        for (std::size_t i = 0; i < slots_.size(); ++i) {
            const Slot slot = slots_[i];
            const Chunk& chunk = chunks_[slot.chunk];
            if (slot.count == 0 && slots_.size() > 1) return "no chunk is empty";
            if (slot.count > CHUNK_LEVELS) return "a chunk holds at most CHUNK_LEVELS";
            if (i > 0 && low_[i] <= low_[i - 1]) return "separators rise";
            for (std::uint32_t j = 0; j < slot.count; ++j) {
                if (chunk.keys[j] < low_[i]) return "a key is below its chunk's separator";
                if (i + 1 < slots_.size() && chunk.keys[j] >= low_[i + 1]) return "a key is above its chunk's range";
                if (j > 0 && chunk.keys[j] <= chunk.keys[j - 1]) return "keys rise";
                if (chunk.qtys[j] <= 0) return "quantities are above zero";
            }
            for (std::uint32_t j = slot.count; j < CHUNK_LEVELS; ++j)
                if (chunk.keys[j] != KEY_MAX) return "unused keys are KEY_MAX";
            levels += slot.count;
        }
        return levels == size_ ? nullptr : "the size is the sum of the chunks";
    }

private:
    struct alignas(64) Chunk {
        std::int64_t keys[CHUNK_LEVELS];
        std::int64_t qtys[CHUNK_LEVELS];
    };
    struct Slot {
        std::uint32_t chunk;
        std::uint32_t count;
    };
    struct Place {
        std::uint32_t at;     // of the chunk's slot
        std::uint32_t place;  // in the chunk
    };
    static constexpr std::uint32_t BATCH = 32;

    Level level(Slot slot, std::uint32_t place) const {
        const Chunk& chunk = chunks_[slot.chunk];
        return {chunk.keys[place] ^ flip_, chunk.qtys[place]};
    }

    // The last chunk whose separator is at most `key`.
    std::uint32_t chunk_of(std::int64_t key) const {
        // Near the touch is where most changes are: one branch, nearly always the same way, saves the search.
        if (key >= low_.back()) return static_cast<std::uint32_t>(low_.size() - 1);
        const std::int64_t* base = low_.data();
        std::size_t left = low_.size();
        while (left > 1) {
            const std::size_t half = left / 2;
            base += half & (0 - static_cast<std::size_t>(base[half] <= key));
            left -= half;
        }
        return static_cast<std::uint32_t>(base - low_.data());
    }

    // How many keys of the chunk are below `key`.
    static std::uint32_t place_of(const Chunk& chunk, std::int64_t key) {
        const std::int64_t* base = chunk.keys;
#pragma GCC unroll 8
        for (std::size_t half = CHUNK_LEVELS / 2; half > 0; half /= 2)
            base += half & (0 - static_cast<std::size_t>(base[half - 1] < key));
        return static_cast<std::uint32_t>(base - chunk.keys) + (*base < key);
    }

    std::int64_t set_at(std::uint32_t at, std::uint32_t place, std::int64_t key, std::int64_t qty) {
        Chunk& chunk = chunks_[slots_[at].chunk];
        const bool found = place < slots_[at].count && chunk.keys[place] == key;
        if (qty > 0) {
            if (found) return std::exchange(chunk.qtys[place], qty);
            insert(at, place, key, qty);
            return 0;
        }
        if (!found) return 0;
        const std::int64_t before = chunk.qtys[place];
        remove(at, place);
        return before;
    }

    void insert(std::uint32_t at, std::uint32_t place, std::int64_t key, std::int64_t qty) {
        if (slots_[at].count == CHUNK_LEVELS) {
            split(at);
            const std::uint32_t kept = slots_[at].count;
            if (place > kept || (place == kept && key >= low_[at + 1])) {
                place -= kept;
                ++at;
            }
        }
        Slot& slot = slots_[at];
        Chunk& chunk = chunks_[slot.chunk];
        const std::uint32_t behind = slot.count - place;
        std::memmove(chunk.keys + place + 1, chunk.keys + place, behind * sizeof(std::int64_t));
        std::memmove(chunk.qtys + place + 1, chunk.qtys + place, behind * sizeof(std::int64_t));
        chunk.keys[place] = key;
        chunk.qtys[place] = qty;
        ++slot.count;
        ++size_;
    }

    void remove(std::uint32_t at, std::uint32_t place) {
        Slot& slot = slots_[at];
        Chunk& chunk = chunks_[slot.chunk];
        const std::uint32_t behind = slot.count - place - 1;
        std::memmove(chunk.keys + place, chunk.keys + place + 1, behind * sizeof(std::int64_t));
        std::memmove(chunk.qtys + place, chunk.qtys + place + 1, behind * sizeof(std::int64_t));
        --slot.count;
        --size_;
        chunk.keys[slot.count] = KEY_MAX;
        if (slot.count < MERGE_BELOW && slots_.size() > 1) merge(at);
    }

    // The upper half of a full chunk becomes a chunk of its own.
    void split(std::uint32_t at) {
        const std::uint32_t fresh = take_chunk();
        Chunk& from = chunks_[slots_[at].chunk];
        Chunk& to = chunks_[fresh];
        constexpr std::uint32_t HALF = CHUNK_LEVELS / 2;
        std::memcpy(to.keys, from.keys + HALF, HALF * sizeof(std::int64_t));
        std::memcpy(to.qtys, from.qtys + HALF, HALF * sizeof(std::int64_t));
        std::fill(to.keys + HALF, to.keys + CHUNK_LEVELS, KEY_MAX);
        std::fill(from.keys + HALF, from.keys + CHUNK_LEVELS, KEY_MAX);
        slots_[at].count = HALF;
        slots_.insert(slots_.begin() + at + 1, Slot{fresh, HALF});
        low_.insert(low_.begin() + at + 1, to.keys[0]);
        ++shape_;
    }

    // A small chunk joins a neighbour that has room; an empty one goes in any case.
    void merge(std::uint32_t at) {
        if (slots_[at].count == 0) return erase_chunk(at);
        if (at + 1 < slots_.size() && slots_[at].count + slots_[at + 1].count <= MERGED_MAX) return join(at);
        if (at > 0 && slots_[at - 1].count + slots_[at].count <= MERGED_MAX) join(at - 1);
    }
    void join(std::uint32_t at) {
        Slot& to = slots_[at];
        const Slot from = slots_[at + 1];
        std::memcpy(chunks_[to.chunk].keys + to.count, chunks_[from.chunk].keys, from.count * sizeof(std::int64_t));
        std::memcpy(chunks_[to.chunk].qtys + to.count, chunks_[from.chunk].qtys, from.count * sizeof(std::int64_t));
        to.count += from.count;
        erase_chunk(at + 1);
    }

    void erase_chunk(std::uint32_t at) {
        ++shape_;
        free_.push_back(slots_[at].chunk);
        slots_.erase(slots_.begin() + at);
        low_.erase(low_.begin() + at);
        low_[0] = KEY_MIN;
    }
    void append_chunk(std::int64_t low) {
        slots_.push_back({take_chunk(), 0});
        low_.push_back(low);
    }
    std::uint32_t take_chunk() {
        if (free_.empty()) {
            free_.push_back(static_cast<std::uint32_t>(chunks_.size()));
            chunks_.emplace_back();
        }
        const std::uint32_t chunk = free_.back();
        free_.pop_back();
        std::fill(chunks_[chunk].keys, chunks_[chunk].keys + CHUNK_LEVELS, KEY_MAX);
        return chunk;
    }

    std::int64_t flip_;
    std::uint32_t size_ = 0;
    std::uint64_t shape_ = 0;  // rises when a chunk is added or goes
    std::vector<std::int64_t> low_;
    std::vector<Slot> slots_;
    std::vector<Chunk> chunks_;
    std::vector<std::uint32_t> free_;
    std::vector<Level> scratch_;  // of assign
};

}  // namespace lob
