// pool_test.cpp - the pool of objects: its limit, its counters, and that no object is ever in two hands.
#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "expect.hpp"
#include "pool.hpp"

using namespace lob;

namespace {

std::atomic<int> alive{0};

struct Order {
    explicit Order(std::uint64_t id) : id(id), copy(id) { ++alive; }
    ~Order() {
        id = copy = 0;
        --alive;
    }
    std::uint64_t id, copy;
    char rest[40];
};

void objects_are_made_and_ended_and_handed_out_again() {
    Pool<Order> pool(100);
    Pool<Order>::Cache cache(pool);
    Order* first = cache.take(7u);
    EXPECT(first != nullptr && first->id == 7 && alive == 1);
    cache.give(first);
    EXPECT(alive == 0);
    EXPECT(cache.take(8u) == first);  // the one that is still in the processor's cache
    cache.give(first);
}

void at_the_limit_nothing_is_given_and_it_is_counted() {
    Pool<Order> pool(100);  // no multiple of a batch
    Pool<Order>::Cache cache(pool);
    std::vector<Order*> all;
    while (Order* order = cache.take(1u)) all.push_back(order);
    EXPECT(all.size() == 100 && pool.counters().refused == 1 && pool.counters().in_use == 100);
    EXPECT(pool.counters().high_water == 100 && pool.counters().refills == 4);
    cache.give(all.back());
    all.pop_back();
    EXPECT((all.emplace_back(cache.take(2u)), all.back() != nullptr));
    for (Order* order : all) cache.give(order);
}

void small_batches_leave_less_in_the_hand_of_another_thread() {
    Pool<Order, 4> pool(10);
    Pool<Order, 4>::Cache takes(pool), gives(pool);
    std::vector<Order*> all;
    while (Order* order = takes.take(1u)) all.push_back(order);
    EXPECT(all.size() == 10 && pool.counters().refills == 3);
    for (std::size_t i = 0; i < 7; ++i) gives.give(all[i]);
    EXPECT(takes.take(2u) == nullptr);  // seven are in the other's cache
    gives.give(all[7]);
    for (int i = 0; i < 4; ++i) EXPECT((all[i] = takes.take(2u)) != nullptr);  // and now four of them are not
    for (const std::size_t i : {0, 1, 2, 3, 8, 9}) takes.give(all[i]);
}

void counters_are_exact_when_all_caches_are_gone() {
    Pool<Order> pool(960);
    for (int round = 0; round < 10; ++round) {
        Pool<Order>::Cache cache(pool);
        std::vector<Order*> some;
        for (int i = 0; i < 77; ++i) some.push_back(cache.take(1u));
        for (Order* order : some) cache.give(order);
    }
    EXPECT(pool.counters().in_use == 0 && pool.counters().high_water == 96 && pool.counters().refused == 0);
    Pool<Order>::Cache cache(pool);
    std::vector<Order*> all;
    while (Order* order = cache.take(1u)) all.push_back(order);
    EXPECT(all.size() == 960);  // nothing has got lost in between
    for (Order* order : all) cache.give(order);
}

// Threads take, pass on through a box that all share, and give what others took.
void no_object_is_ever_in_two_hands() {
    constexpr int THREADS = 4, BOXES = 64;
    Pool<Order> pool(600);
    std::atomic<Order*> boxes[BOXES] = {};
    std::atomic<bool> wrong{false};
    std::vector<std::thread> threads;
    for (int who = 0; who < THREADS; ++who)
        threads.emplace_back([&, who] {
            Pool<Order>::Cache cache(pool);
            std::uint64_t chance = static_cast<std::uint64_t>(who) + 1;
            std::vector<Order*> mine;
            for (std::uint64_t n = 1; n <= 100'000; ++n) {
                chance = chance * 6364136223846793005ull + 1442695040888963407ull;
                const std::uint64_t id = static_cast<std::uint64_t>(who) << 32 | n;
                if (mine.size() < 100 && (chance >> 60) < 9) {
                    if (Order* order = cache.take(id)) mine.push_back(order);
                } else if (!mine.empty()) {
                    Order* order = boxes[(chance >> 40) % BOXES].exchange(mine.back());
                    mine.pop_back();
                    if (order == nullptr) continue;
                    if (order->id == 0 || order->id != order->copy) wrong = true;
                    cache.give(order);
                }
            }
            for (Order* order : mine) {
                if (order->id == 0 || order->id != order->copy) wrong = true;
                cache.give(order);
            }
        });
    for (auto& thread : threads) thread.join();
    Pool<Order>::Cache cache(pool);
    for (auto& box : boxes)
        if (Order* order = box.load()) cache.give(order);
    std::vector<Order*> all;
    while (Order* order = cache.take(1u)) all.push_back(order);
    EXPECT(!wrong && all.size() == 600);
    for (Order* order : all) cache.give(order);
    EXPECT(alive == 0 && pool.counters().high_water <= 600);
}

constexpr Test TESTS[] = {
    TEST(objects_are_made_and_ended_and_handed_out_again),
    TEST(at_the_limit_nothing_is_given_and_it_is_counted),
    TEST(small_batches_leave_less_in_the_hand_of_another_thread),
    TEST(counters_are_exact_when_all_caches_are_gone),
    TEST(no_object_is_ever_in_two_hands),
};

}  // namespace

int main() { return run(TESTS); }
