#include "faults.h"
#include <algorithm>
#include <cctype>
#include <sstream>

namespace sim {
namespace {

constexpr uint64_t ONCE = FAULT_WRAP | FAULT_ENCODER_ROLLOVER;  // the numbers before them lead up to them

// SplitMix64: one well-mixed number in [0, 1) per seed, fault and counter.
double chance(uint64_t seed, uint64_t fault, uint64_t counter) {
    uint64_t z = seed * 0x9E3779B97F4A7C15ull + fault * 0xD1B54A32D192ED03ull + counter * 0x8CB92BA72F3D8DD7ull;
    for (int round = 0; round < 2; ++round) {
        z += 0x9E3779B97F4A7C15ull;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        z ^= z >> 31;
    }
    return static_cast<double>(z >> 11) * 0x1.0p-53;
}

[[noreturn]] void refuse(const std::string& item, const std::string& why) {
    throw Error(GC_ERR_INVALID_VALUE, "fault '" + item + "': " + why);
}

int64_t parse_duration(const std::string& item, const std::string& text) {
    size_t used = 0;
    double value = 0;
    try {
        value = std::stod(text, &used);
    } catch (const std::logic_error&) {
        refuse(item, "'" + text + "' is no duration");
    }
    const std::string unit = text.substr(used);
    const double scale = unit == "us" ? 1e3 : unit == "ms" || unit.empty() ? 1e6 : unit == "s" ? 1e9 : 0;
    if (scale == 0 || value < 0) refuse(item, "'" + text + "' is no duration (us, ms or s)");
    return static_cast<int64_t>(value * scale);
}

uint64_t parse_count(const std::string& item, const std::string& text) {
    if (text.empty() || !std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); }))
        refuse(item, "'" + text + "' is no whole number");
    const uint64_t value = std::stoull(text);
    if (value == 0) refuse(item, "0 is not allowed: triggers and calls are counted from 1");
    return value;
}

FaultRule parse_item(const std::string& item) {
    const size_t equals = item.find('='), score = item.rfind('_', equals);
    if (equals == std::string::npos || score == std::string::npos) refuse(item, "write KIND_at=N, KIND_every=N or KIND_rate=P");
    FaultRule rule;
    const std::string kind = item.substr(0, score), mode = item.substr(score + 1, equals - score - 1);
    for (const auto& known : FAULT_NAMES)
        if (kind == known.name && !(known.bit & UNPLANNED_FAULTS)) rule.fault = known.bit;
    if (!rule.fault) refuse(item, "no fault is called '" + kind + "'");
    std::string value = item.substr(equals + 1);
    if (const size_t colon = value.find(':'); colon != std::string::npos) {
        rule.duration_ns = parse_duration(item, value.substr(colon + 1));
        value.erase(colon);
    }
    if (mode == "at") {
        if (const size_t x = value.find('x'); x != std::string::npos) {
            rule.count = parse_count(item, value.substr(x + 1));
            value.erase(x);
        }
        rule.at = parse_count(item, value);
    } else if (mode == "every") {
        rule.every = parse_count(item, value);
    } else if (mode == "rate") {
        size_t used = 0;
        try {
            rule.rate = std::stod(value, &used);
        } catch (const std::logic_error&) {
            used = std::string::npos;
        }
        if (used != value.size() || rule.rate < 0 || rule.rate > 1) refuse(item, "'" + value + "' is no probability");
    } else {
        refuse(item, "'" + mode + "' is none of at, every, rate");
    }
    return rule;
}

}  // namespace

void FaultPlan::parse(const std::string& text) {
    std::istringstream items(text);
    for (std::string item; std::getline(items, item, ',');) {
        item.erase(std::remove_if(item.begin(), item.end(), [](unsigned char c) { return std::isspace(c); }), item.end());
        if (!item.empty()) add(parse_item(item));
    }
}

void FaultPlan::add(const FaultRule& rule) {
    for (const auto& known : FAULT_NAMES) {
        if (known.bit != rule.fault) continue;
        if (known.bit & ONCE && rule.at == 0)
            throw Error(GC_ERR_INVALID_VALUE, std::string("fault '") + known.name + "' happens once: write " + known.name + "_at=N");
        rules_.push_back(rule);
        if (rule.duration_ns == 0) rules_.back().duration_ns = known.default_ns;
    }
}

FaultHit FaultPlan::at(uint64_t number) const {
    FaultHit hit;
    for (const auto& rule : rules_) {
        const bool hits = rule.every ? number % rule.every == 0
                          : rule.rate > 0 ? chance(seed_, rule.fault, number) < rule.rate
                                          : number >= rule.at && number - rule.at < rule.count;
        if (!hits) continue;
        hit.flags |= rule.fault;
        hit.durations_ns[static_cast<size_t>(__builtin_ctzll(rule.fault))] = rule.duration_ns;
    }
    return hit;
}

uint64_t FaultPlan::at_once(uint64_t fault) const {
    for (const auto& rule : rules_)
        if (rule.fault == fault) return rule.at;
    return 0;
}

bool FaultPlan::has(uint64_t fault) const {
    for (const auto& rule : rules_)
        if (rule.fault == fault) return true;
    return false;
}

}  // namespace sim
