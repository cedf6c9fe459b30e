// Which faults hit which trigger, or which call. The answer depends only on the plan, the seed and the number of the trigger or
// call, so that a run can be repeated, and a fault that killed the process does not come again after the restart: its number has passed.
#pragma once
#include "common.h"
#include <array>

namespace sim {

struct FaultRule {
    uint64_t fault = 0;
    uint64_t at = 0, count = 1;  // hits numbers at .. at + count - 1
    uint64_t every = 0;          // or every multiple of this
    double rate = 0;             // or each with this probability
    int64_t duration_ns = 0;
};

struct FaultHit {
    uint64_t flags = 0;
    std::array<int64_t, 64> durations_ns{};  // by bit

    int64_t lasts_ns(uint64_t fault) const { return durations_ns[static_cast<size_t>(__builtin_ctzll(fault))]; }
};

class FaultPlan {
public:
    // "drop_every=7,drop_at=40x5,late_at=60:300ms,black_rate=0.01": KIND_every=N, KIND_at=COUNTER[xCOUNT], KIND_rate=P, each
    // with [:DURATION] (ms, or with a unit: us, ms, s). Throws Error naming what it does not understand.
    void parse(const std::string& text);
    void set_seed(uint64_t seed) { seed_ = seed; }
    void add(const FaultRule& rule);
    void clear() { rules_.clear(); }
    FaultHit at(uint64_t number) const;
    uint64_t at_once(uint64_t fault) const;  // the trigger for which a fault that happens once is planned; 0: none
    bool has(uint64_t fault) const;

private:
    std::vector<FaultRule> rules_;
    uint64_t seed_ = 0;
};

}  // namespace sim
