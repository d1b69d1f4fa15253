// checksum.hpp - the checksums that venues send over the top of a book.
//
// Kraken v2 ("book-checksum-v2"): CRC-32 (IEEE, as zlib's) over the best ten asks, then the best ten bids; of each
// level the digits of the price and of the quantity as displayed, without the point and without leading zeros.
// Mantissas at the display scale are those digits, so no text is kept.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ladder.hpp"

namespace lob {

using Crc32Tables = std::array<std::array<std::uint32_t, 256>, 8>;
constexpr Crc32Tables make_crc32_tables() {
    Crc32Tables tables{};
    for (std::uint32_t byte = 0; byte < 256; ++byte) {
        std::uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xEDB88320u : 0);
        tables[0][byte] = crc;
    }
    for (std::size_t step = 1; step < 8; ++step)
        for (std::uint32_t byte = 0; byte < 256; ++byte)
            tables[step][byte] = tables[0][tables[step - 1][byte] & 0xFF] ^ tables[step - 1][byte] >> 8;
    return tables;
}
inline constexpr Crc32Tables CRC32_TABLES = make_crc32_tables();

// CRC-32 of the polynomial 0xEDB88320, eight bytes a step.
class Crc32 {
public:
    void update(const char* bytes, std::size_t size) {
        while (size >= 8) {
            std::uint64_t word = 0;
            std::memcpy(&word, bytes, 8);
            word ^= crc_;
            crc_ = CRC32_TABLES[7][word & 0xFF] ^ CRC32_TABLES[6][word >> 8 & 0xFF] ^ CRC32_TABLES[5][word >> 16 & 0xFF] ^
                   CRC32_TABLES[4][word >> 24 & 0xFF] ^ CRC32_TABLES[3][word >> 32 & 0xFF] ^ CRC32_TABLES[2][word >> 40 & 0xFF] ^
                   CRC32_TABLES[1][word >> 48 & 0xFF] ^ CRC32_TABLES[0][word >> 56];
            bytes += 8;
            size -= 8;
        }
        while (size-- > 0) crc_ = CRC32_TABLES[0][(crc_ ^ static_cast<unsigned char>(*bytes++)) & 0xFF] ^ crc_ >> 8;
    }
    std::uint32_t value() const { return ~crc_; }

private:
    std::uint32_t crc_ = 0xFFFFFFFFu;
};

// Writes the digits of a number, none for 0; returns the end.
inline char* write_digits(char* to, std::int64_t number) {
    auto left = static_cast<std::uint64_t>(number);
    char digits[20];
    int count = 0;
    for (; left != 0; left /= 10) digits[count++] = static_cast<char>('0' + left % 10);
    while (count > 0) *to++ = digits[--count];
    return to;
}

inline std::uint32_t kraken_checksum(const Ladder& bids, const Ladder& asks) {
    constexpr std::uint32_t DEPTH = 10;
    char text[2 * DEPTH * 2 * 20];
    char* end = text;
    Level levels[DEPTH];
    for (const Ladder* side : {&asks, &bids}) {
        const std::uint32_t count = side->top(DEPTH, levels);
        for (std::uint32_t i = 0; i < count; ++i) end = write_digits(write_digits(end, levels[i].price), levels[i].qty);
    }
    Crc32 crc;
    crc.update(text, static_cast<std::size_t>(end - text));
    return crc.value();
}

}  // namespace lob
