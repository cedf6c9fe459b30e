// What every file of the simulator uses: the error that becomes a GenTL status, the host's clock, the environment, the node table.
#pragma once
#include "gentl.h"
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <stdexcept>
#include <string>
#include <vector>

namespace sim {

class Error : public std::runtime_error {
public:
    Error(GC_ERROR status, const std::string& text) : std::runtime_error(text), code(status) {}
    const GC_ERROR code;
};

// CLOCK_MONOTONIC in nanoseconds: comparable between processes, so that a new one continues the line of the last.
inline int64_t now_ns() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

inline std::string environment(const std::string& name, const std::string& otherwise = "") {
    const char* value = std::getenv(name.c_str());
    return value ? value : otherwise;
}

struct NodeInfo {
    const char* name;
    bool is_float, readable, writable, locked;
    double initial, minimum, maximum;
    std::vector<int64_t> allowed;  // of an enumeration; empty: any within the limits
};
struct FaultName {
    const char* name;
    uint64_t bit;
    int64_t default_ns;  // where no duration is given
};
#include "nodes.inc"

constexpr uint32_t MONO8 = 0x01080001, BAYER_RG8 = 0x01080009, RGB8 = 0x02180014;
constexpr int64_t NEVER_NS = INT64_MAX;

}  // namespace sim
