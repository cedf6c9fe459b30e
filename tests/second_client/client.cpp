// A second line controller, written from docs/line-protocol.md alone. It prints one line per decision and per change of state.
//   client PUBLISHER REQUESTS
#include <zmq.h>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>
using Fields = std::map<std::string, std::string>;
const double NEVER = INFINITY;
// JSON: the members of one object, values as they stand there.
static size_t skip(const std::string& s, size_t i) {  // past one value
    for (int depth = 0; i < s.size(); ++i) {
        if (s[i] == '"') for (++i; s[i] != '"'; ++i) i += s[i] == '\\';
        else if (s[i] == '{' || s[i] == '[') ++depth;
        else if (depth == 0 && (s[i] == ',' || s[i] == '}' || s[i] == ']')) return i;
        else if (s[i] == '}' || s[i] == ']') --depth;
    }
    return i;
}
static std::string text(const std::string& raw) { return raw.size() > 1 && raw[0] == '"' ? raw.substr(1, raw.size() - 2) : ""; }
static Fields members(const std::string& s) {
    Fields found;
    for (size_t i = s.find('{') + 1; i < s.size();) {
        const size_t begin = s.find('"', i), end = s.find('"', begin + 1);
        if (begin == std::string::npos) break;
        const size_t value = s.find_first_not_of(": ", end + 1);
        i = skip(s, value) + 1;
        found[s.substr(begin + 1, end - begin - 1)] = s.substr(value, i - 1 - value);
    }
    return found;
}
static double number(Fields& f, const char* key, double otherwise = 0) {
    return f.count(key) && f[key] != "null" ? std::strtod(f[key].c_str(), nullptr) : otherwise;
}
static double now_ms() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
struct Verdict { long seq, part_no; std::string id; double exposed, deadline, sent; };
struct Gap { std::set<long> missing; double found, asked, before; };
struct Stream {
    std::vector<Gap> gaps;
    std::vector<Verdict> held;
    std::map<double, double> blind;  // from, to; ages of the boot
    std::set<std::string> ids;
    double doubt = -NEVER, beat = -NEVER, saw = -NEVER;
    long highest = 0, alive = false;
};
struct Client {
    void* requests = nullptr;
    std::string boot;
    std::set<std::string> past;
    std::map<std::string, Stream> streams;
    double dead_after = 130, repair = 60, present = 500, least = NEVER, hello_due = 0, ping_due = 0, heard = 0;
    long no = 0, hello_no = -1, welcomed = false;

    void send(const std::string& rest) {
        const std::string request = rest.substr(0, rest.size() - 1) + ",\"v\":1,\"no\":" + std::to_string(++no) + "}";
        zmq_send(requests, request.data(), request.size(), ZMQ_DONTWAIT);
    }
    void decide(const std::string& stream, const Verdict& v, bool passes, const char* cause) {
        std::printf("%s %s %s %ld %s %s\n", passes ? "PASS" : "NO", boot.c_str(), stream.c_str(), v.part_no, v.id.empty() ? "-" : v.id.c_str(), cause);
    }
    void fail(const char* cause) {  // everything under way; nothing until hello is answered and heartbeats come
        for (auto& [name, s] : streams) {
            for (auto& v : s.held) decide(name, v, false, cause);
            s.held.clear(), s.alive = false;
        }
        welcomed = false, hello_due = 0, std::printf("STATE %s\n", cause);
    }
    bool current(const std::string& id) {  // whether a message of this boot counts
        if (id == boot || past.count(id)) return id == boot;
        if (!boot.empty()) fail("boot"), past.insert(boot);
        return boot = id, streams.clear(), least = NEVER, welcomed = false, hello_due = 0, true;
    }
    void reach(Stream& s, long last, double age, double now) {  // numbers up to last were given
        if (last <= s.highest) return;
        Gap gap{{}, now, -NEVER, age};
        for (long seq = s.highest + 1; seq <= last; ++seq) gap.missing.insert(seq);
        s.gaps.push_back(gap), s.highest = last, std::printf("GAP %ld\n", static_cast<long>(gap.missing.size()));
    }
    void release(const std::string& name, Stream& s, double now) {
        std::vector<Verdict> waiting;
        for (auto& v : s.held) {
            bool complete = true, unseen = false;
            for (auto& gap : s.gaps) complete = complete && *gap.missing.begin() > v.seq;
            for (auto& [from, to] : s.blind) unseen = unseen || (from + 0.001 < v.exposed && v.exposed < to - 0.001);
            if (!complete) waiting.push_back(v);
            else if (now - least > v.deadline) decide(name, v, false, "late");
            else if (v.exposed < s.doubt) decide(name, v, false, "gap");
            else if (unseen) decide(name, v, false, "blind");
            else if (!v.id.empty() && !s.ids.insert(v.id).second) decide(name, v, false, "double");
            else decide(name, v, true, "verdict");
        }
        s.held = waiting;
    }
    void numbered(const std::string& name, Stream& s, Fields f, double now) {
        const double seq = number(f, "seq"), age = number(f, "boot_age_ms");
        bool fresh = seq > s.highest;
        if (fresh) reach(s, seq - 1, age, now), s.highest = seq;
        else for (auto& gap : s.gaps) fresh = fresh || gap.missing.erase(seq);
        if (!fresh) return;
        for (auto gap = s.gaps.begin(); gap != s.gaps.end();)
            if (gap->missing.empty()) gap = s.gaps.erase(gap), std::printf("REPAIRED\n"); else ++gap;
        if (text(f["type"]) == "blind") {
            const double to = f["to_ms_ago"] == "null" ? NEVER : age - number(f, "to_ms_ago");
            auto known = s.blind.emplace(std::round(1000 * (age - number(f, "from_ms_ago"))) / 1000, to).first;
            if (to != NEVER) known->second = to;
            if (to != NEVER && s.blind.count(-NEVER)) s.blind[-NEVER] = to;  // it went on when the controller came
        } else if (text(f["type"]) == "verdict") {
            Verdict v{static_cast<long>(seq), static_cast<long>(number(f, "part_no")), text(f["PartId"]), age - number(f, "age_ms"), age + number(f, "remaining_ms"), age};
            if (text(f["outcome"]) != "PASS" || text(f["action"]) != "pass") decide(name, v, false, "verdict");
            else if (!welcomed || !s.alive) decide(name, v, false, "unsynchronised");
            else if (v.sent - s.beat > dead_after) decide(name, v, false, "dead");
            else s.held.push_back(v);
        }
        release(name, s, now);
    }
    void published(const std::string& payload, double now) {
        Fields f = members(payload);
        if (number(f, "v") != 1 || !current(text(f["boot_id"]))) return;
        const double age = number(f, "boot_age_ms"), beat = text(f["type"]) == "heartbeat";
        least = std::fmin(least, now - age);  // a run of minutes: the clocks do not drift apart by much
        const std::string name = text(f["stream"]);
        if (!streams.count(name)) streams[name].highest = welcomed ? 0 : number(f, beat ? "last_seq" : "seq") - !beat;
        Stream& s = streams[name];
        if (!beat) return numbered(name, s, f, now);
        reach(s, number(f, "last_seq"), age, now);
        s.beat = std::fmax(s.beat, age);
        if (f["blind"] == "true") {
            if (std::none_of(s.blind.begin(), s.blind.end(), [](auto& one) { return one.second == NEVER; })) s.blind[s.saw] = NEVER;
        } else if (s.gaps.empty()) {
            for (auto& [from, to] : s.blind) to = std::fmin(to, age);
            s.saw = age;
        }
        if (welcomed && !s.alive && now - least - age <= dead_after) s.alive = true, std::printf("STATE live %s\n", name.c_str());
    }
    void answered(const std::string& payload, double now) {
        Fields f = members(payload);
        const std::string type = text(f["type"]);
        heard = now;
        if (type == "refused" && (text(f["code"]) == "no_hello" || text(f["code"]) == "revoked")) fail("refused"), hello_due = now + 1000;
        if (type == "welcome" && number(f, "no") == hello_no && !welcomed && current(text(f["boot_id"]))) {
            dead_after = number(f, "dead_after_ms"), repair = number(f, "repair_ms"), present = number(f, "present_ms"), welcomed = true;
            for (auto& [name, raw] : members(f["streams"])) {
                Fields info = members(raw);
                streams[name].highest = std::fmax(streams[name].highest, number(info, "last_seq"));
                if (info["blind"] == "true") streams[name].blind[-NEVER] = NEVER;
            }
        } else if (type == "replayed") {
            Fields message = members(f["message"]);
            if (text(message["boot_id"]) == boot) numbered(text(message["stream"]), streams[text(message["stream"])], message, now);
        }
    }
    void tick(double now) {  // after everything that has arrived was read
        if (!welcomed && now >= hello_due) hello_no = no + 1, hello_due = now + 200, heard = now, send("{\"type\":\"hello\",\"name\":\"second\"}");
        if (welcomed && now >= ping_due) ping_due = now + present / 3, send("{\"type\":\"ping\"}");
        bool dead = welcomed && now - heard > std::fmax(1000, 2 * present);
        for (auto& [name, s] : streams) {
            int asked = 0;
            for (auto gap = s.gaps.begin(); gap != s.gaps.end();) {
                const bool over = now - gap->found > repair;
                if (!over && welcomed && ++asked <= 4 && now - gap->asked > repair / 4)
                    gap->asked = now, send("{\"type\":\"replay\",\"stream\":\"" + name + "\",\"from_seq\":" + std::to_string(*gap->missing.begin()) +
                                           ",\"to_seq\":" + std::to_string(*gap->missing.rbegin()) + "}");
                if (over) s.doubt = std::fmax(s.doubt, gap->before), gap = s.gaps.erase(gap), std::printf("GIVEN UP\n");
                else ++gap;
            }
            release(name, s, now);
            dead = dead || (s.alive && now - least - s.beat > dead_after);
        }
        if (dead) fail("dead");
        std::fflush(stdout);
    }
};
int main(int, char** argv) {
    void* context = zmq_ctx_new();
    void* sub = zmq_socket(context, ZMQ_SUB);
    Client client;
    client.requests = zmq_socket(context, ZMQ_DEALER);
    const int one = 1, many = 100000, soon = 20;
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "", 0), zmq_setsockopt(sub, ZMQ_RCVHWM, &many, sizeof many);
    zmq_setsockopt(sub, ZMQ_RECONNECT_IVL, &soon, sizeof soon), zmq_setsockopt(client.requests, ZMQ_IMMEDIATE, &one, sizeof one);
    if (zmq_connect(sub, argv[1]) || zmq_connect(client.requests, argv[2])) return std::perror("connect"), 1;
    for (;;) {
        zmq_pollitem_t items[] = {{sub, 0, ZMQ_POLLIN, 0}, {client.requests, 0, ZMQ_POLLIN, 0}};
        zmq_poll(items, 2, 5);
        for (void* socket : {sub, client.requests})
            for (zmq_msg_t frame; zmq_msg_init(&frame) == 0; zmq_msg_close(&frame)) {
                if (zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0) break;
                if (zmq_msg_more(&frame)) continue;  // the topic
                const std::string payload(static_cast<char*>(zmq_msg_data(&frame)), zmq_msg_size(&frame));
                socket == sub ? client.published(payload, now_ms()) : client.answered(payload, now_ms());
            }
        client.tick(now_ms());
    }
}
