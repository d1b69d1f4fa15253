// diff.hpp - what one message changed in a book: each price once, with the quantity before and after.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "layout.hpp"

namespace lob {

struct Change {
    std::int64_t price;
    std::int64_t before;
    std::int64_t after;
};

// The changes of one side. A price may be set twice in a message (Kraken) and cut by truncation after that.
class Diff {
public:
    void begin() {
        changes_.clear();
        rising_ = falling_ = true;
    }
    void add(std::int64_t price, std::int64_t before, std::int64_t after) {
        if (before == after) return;
        if (!changes_.empty()) {
            rising_ = rising_ && price > changes_.back().price;
            falling_ = falling_ && price < changes_.back().price;
        }
        changes_.push_back({price, before, after});
    }

    // One entry a price, none for a price that ended as it began.
    void settle() {
        if (!rising_ && !falling_ && may_repeat()) fold();
        std::erase_if(changes_, [](const Change& change) { return change.before == change.after; });
    }
    const std::vector<Change>& changes() const { return changes_; }

private:
    static constexpr std::size_t FEW = 32;

    // False if surely no price stands twice. Most venues send a side in order of price and do not come here; for the
    // others a hash into some bits is ten times as fast as comparing all with all.
    bool may_repeat() const {
        constexpr int BITS_LOG2 = 12;
        std::uint64_t seen[(1 << BITS_LOG2) / 64] = {};
        for (const Change& change : changes_) {
            const std::uint64_t hash = static_cast<std::uint64_t>(change.price) * 0x9E3779B97F4A7C15ull >> (64 - BITS_LOG2);
            const std::uint64_t bit = 1ull << (hash % 64);
            if ((seen[hash / 64] & bit) != 0) return true;
            seen[hash / 64] |= bit;
        }
        return false;
    }

    void fold() {
        if (changes_.size() > FEW)
            std::stable_sort(changes_.begin(), changes_.end(), [](const Change& a, const Change& b) { return a.price < b.price; });
        const bool sorted = changes_.size() > FEW;
        std::size_t kept = 0;
        for (const Change& change : changes_) {
            std::size_t same = sorted && kept > 0 ? kept - 1 : 0;
            while (same < kept && changes_[same].price != change.price) ++same;
            if (same < kept) {
                changes_[same].after = change.after;
            } else {
                changes_[kept++] = change;
            }
        }
        changes_.resize(kept);
    }

    std::vector<Change> changes_;
    bool rising_ = true;
    bool falling_ = true;
};

}  // namespace lob
