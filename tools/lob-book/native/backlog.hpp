// backlog.hpp - the diffs that wait for a snapshot: whole records in order, bounded; when full the oldest goes.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "ladder.hpp"
#include "layout.hpp"

namespace lob {

class Backlog {
public:
    Backlog(std::uint32_t records_max, std::uint32_t bytes_max) : records_max_(records_max), bytes_max_(bytes_max) {}

    // Keeps a copy; returns how many old records had to go for it.
    std::uint32_t push(const RecordHeader& record) {
        const std::uint64_t size = record.size_bytes / 8;
        words_.resize(words_.size() + size);
        std::memcpy(words_.data() + words_.size() - size, &record, size * 8);
        ++records_;
        std::uint32_t dropped = 0;
        while (records_ > records_max_ || (words_.size() - first_) * 8 > bytes_max_) {
            first_ += at(first_).size_bytes / 8;
            --records_;
            ++dropped;
        }
        if (first_ > words_.size() / 2) {
            words_.erase(words_.begin(), words_.begin() + static_cast<std::ptrdiff_t>(first_));
            first_ = 0;
        }
        return dropped;
    }

    // Calls with each record, oldest first, until one call returns false.
    template <class Call>
    void for_each(Call&& call) const {
        for (std::size_t i = first_; i < words_.size(); i += at(i).size_bytes / 8)
            if (!call(at(i))) return;
    }

    // Forgets, but keeps the memory only while it is small: a backlog is rare.
    void clear() {
        words_.clear();
        if (words_.capacity() * 8 > KEPT_BYTES) words_.shrink_to_fit();
        first_ = 0;
        records_ = 0;
    }
    std::uint32_t size() const { return records_; }

    // All levels to another scale, the records to another version; false if one does not fit.
    bool rescale(int price_exponent, int qty_exponent, std::uint16_t version) {
        for (std::size_t i = first_; i < words_.size(); i += at(i).size_bytes / 8) {
            auto& record = const_cast<RecordHeader&>(at(i));
            record.version = version;
            auto* body = reinterpret_cast<BookBody*>(&record + 1);
            auto* levels = reinterpret_cast<Level*>(body + 1);
            for (std::uint32_t j = 0; j < body->bid_count + body->ask_count; ++j)
                if (!lob::rescale(levels[j].price, price_exponent) || !lob::rescale(levels[j].qty, qty_exponent)) return false;
        }
        return true;
    }

private:
    static constexpr std::size_t KEPT_BYTES = 65536;
    const RecordHeader& at(std::size_t word) const { return *reinterpret_cast<const RecordHeader*>(words_.data() + word); }

    std::uint32_t records_max_;
    std::uint32_t bytes_max_;
    std::uint32_t records_ = 0;
    std::size_t first_ = 0;
    std::vector<std::uint64_t> words_;
};

}  // namespace lob
