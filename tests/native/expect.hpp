// expect.hpp - what a test of the rings in C++ says when something is not as it should be, and the running of a table of tests.
#pragma once

#include <cstddef>
#include <cstdio>
#include <stdexcept>
#include <string>

struct Failed : std::runtime_error {
    using std::runtime_error::runtime_error;
};
#define EXPECT(condition) \
    if (!(condition)) throw Failed(std::string(#condition) + " is false, line " + std::to_string(__LINE__))

struct Test {
    const char* name;
    void (*body)();
};
#define TEST(name) Test{#name, name}

// The exit status: 0 if all have passed. The last line is what `make` counts.
template <std::size_t count>
int run(const Test (&tests)[count]) {
    int failed = 0;
    for (const Test& test : tests) {
        try {
            test.body();
        } catch (const std::exception& error) {
            std::printf("FAILED %s: %s\n", test.name, error.what());
            ++failed;
        }
    }
    std::printf("%d passed, %d failed\n", static_cast<int>(count) - failed, failed);
    return failed == 0 ? 0 : 1;
}
