// Which faults hit which trigger. The answer depends only on the plan, the seed and the trigger's counter, so that a run can be
// repeated, and a fault that killed the process does not come again after the restart: its counter has passed.
#pragma once
#include "common.h"

namespace sim {

struct FaultRule {
    uint32_t fault = 0;
    uint64_t at = 0, count = 1;  // hits counters at .. at + count - 1
    uint64_t every = 0;          // or every multiple of this
    double rate = 0;             // or each with this probability
    int64_t duration_ns = 0;
};

struct FaultHit {
    uint32_t flags = 0;
    int64_t stall_ns = 0, lost_ns = 0, late_ns = 0, hang_ns = 0;  // hang_ns 0: for ever
};

class FaultPlan {
public:
    // "drop_every=7,drop_at=40x5,late_at=60:300ms,black_rate=0.01": KIND_every=N, KIND_at=COUNTER[xCOUNT], KIND_rate=P, each
    // with [:DURATION] (ms, or with a unit: us, ms, s). Throws Error naming what it does not understand.
    void parse(const std::string& text);
    void set_seed(uint64_t seed) { seed_ = seed; }
    void add(const FaultRule& rule);
    void clear() { rules_.clear(); }
    FaultHit at(uint64_t counter) const;
    uint64_t wrap_at() const;  // counter of the planned wrap; 0: none

private:
    std::vector<FaultRule> rules_;
    uint64_t seed_ = 0;
};

}  // namespace sim
