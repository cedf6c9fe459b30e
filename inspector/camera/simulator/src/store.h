// A device's memory beyond the library's and the process's life: its counter, its line, and the log of every trigger.
// With INSPECTOR_SIM_STATE it lies in files that survive any death of the process; without, in this process's memory, unlogged.
#pragma once
#include "common.h"

namespace sim {

struct DeviceState {
    uint64_t magic, counter;
    int64_t created_ns, lost_until_ns;
    uint64_t line_running, line_base, line_first, line_limit;  // trigger c comes (c - line_base) periods after line_epoch_ns
    int64_t line_epoch_ns;
    double line_rate_hz;
    uint64_t outputs;
    int64_t missed;            // triggers that the camera did not see: its own count is less by so many
    int64_t encoder_offset;    // what slipped, beyond the steps from trigger to trigger
    int64_t clock_shift_ns;    // what the camera's clock was set by
    uint64_t initialised, openings, starts, stops, exposures_written, outputs_written;  // calls, for the faults that hit calls
};

struct TriggerRecord {
    uint64_t counter;
    int64_t host_ns;
    uint64_t flags;
    int64_t encoder;
    uint32_t image, camera_count;  // camera_count: the trigger's number as the camera counts, 32 bits of it
};
static_assert(sizeof(TriggerRecord) == 40, "log.py reads this layout");

class DeviceStore {
public:
    DeviceStore(const std::string& folder, unsigned index);
    ~DeviceStore();
    DeviceStore(const DeviceStore&) = delete;
    DeviceStore& operator=(const DeviceStore&) = delete;

    DeviceState* operator->() const { return state_; }
    // Counts and logs. The log is written first: after a death between the two the log says what the counter is.
    void append(const TriggerRecord& record);
    // One line in the call log: a fault that hit a call.
    void note(const char* kind, uint64_t number);
    // Exclusive use between processes; false: another process has the device open.
    bool lock();
    void unlock();
    // The counter as the log has it: another process may have used the device since.
    void refresh();

private:
    DeviceState memory_{};
    DeviceState* state_ = &memory_;
    int state_fd_ = -1, log_fd_ = -1, calls_fd_ = -1;
};

}  // namespace sim
