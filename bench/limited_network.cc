#include "limited_network.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "ndpipe/base/file.h"

extern char** environ;

namespace ndpipe::bench {
namespace {

// Of a token bucket: two milliseconds at full speed, which timers of a millisecond keep filled; at
// least two of the largest packets that segmentation offload makes.
constexpr double kBurstSeconds = 0.002;
constexpr double kMinBurstBytes = 131'072;
constexpr int kQueueMs = 50;

// Runs a program of the PATH to its end.
Status RunProgram(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int failed = ::posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ);
  if (failed != 0) return FailErrno("cannot start " + words[0], failed);
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return Fail(ErrorCode::kUnavailable,
              fmt::format("'{}' failed: the kernel may lack what it needs", fmt::join(words, " ")));
}

std::string Link(int host) { return fmt::format("link{}", host); }  // the host's end
std::string Port(int host) { return fmt::format("port{}", host); }  // the switch's end

}  // namespace

Result<LimitedNetwork> LimitedNetwork::Create(int num_hosts) {
  if (::geteuid() != 0) {
    return Fail(ErrorCode::kPermissionDenied, "network namespaces need root: run as root");
  }
  LimitedNetwork network(fmt::format("ndp{}", ::getpid()), num_hosts);
  NDP_RETURN_IF_ERROR(network.Build());
  return network;
}

LimitedNetwork::LimitedNetwork(LimitedNetwork&& other) noexcept
    : prefix_(std::exchange(other.prefix_, {})), num_hosts_(other.num_hosts_) {}

LimitedNetwork::~LimitedNetwork() {
  if (prefix_.empty()) return;
  // Links go with their namespaces.
  for (int host = 0; host < num_hosts_; ++host) {
    (void)RunProgram({"ip", "netns", "del", Host(host)});
  }
  (void)RunProgram({"ip", "netns", "del", Switch()});
}

std::string LimitedNetwork::Host(int host) const { return fmt::format("{}-{}", prefix_, host); }

std::string LimitedNetwork::AddressOf(int host) { return fmt::format("10.99.0.{}", host + 1); }

Status LimitedNetwork::Build() {
  NDP_RETURN_IF_ERROR(RunProgram({"ip", "netns", "add", Switch()}));
  NDP_RETURN_IF_ERROR(
      RunProgram({"ip", "-n", Switch(), "link", "add", "bridge", "type", "bridge"}));
  NDP_RETURN_IF_ERROR(RunProgram({"ip", "-n", Switch(), "link", "set", "bridge", "up"}));
  for (int i = 0; i < num_hosts_; ++i) {
    const std::string host = Host(i);
    const std::vector<std::vector<std::string>> steps = {
        {"ip", "netns", "add", host},
        {"ip", "link", "add", Link(i), "netns", host, "type", "veth", "peer", "name", Port(i),
         "netns", Switch()},
        {"ip", "-n", Switch(), "link", "set", Port(i), "master", "bridge"},
        {"ip", "-n", Switch(), "link", "set", Port(i), "up"},
        {"ip", "-n", host, "link", "set", "lo", "up"},
        {"ip", "-n", host, "link", "set", Link(i), "up"},
        {"ip", "-n", host, "addr", "add", AddressOf(i) + "/24", "dev", Link(i)},
    };
    for (const auto& step : steps) NDP_RETURN_IF_ERROR(RunProgram(step));
  }
  return {};
}

Status LimitedNetwork::SetSpeed(double gbits_per_second) {
  const double bytes_per_second = gbits_per_second * 1e9 / 8;
  const auto burst =
      static_cast<int64_t>(std::max(kMinBurstBytes, bytes_per_second * kBurstSeconds));
  const auto limit = [&](const std::string& host, const std::string& device) {
    return RunProgram({"tc", "-n", host, "qdisc", "replace", "dev", device, "root", "tbf", "rate",
                       fmt::format("{:.0f}mbit", gbits_per_second * 1000), "burst",
                       fmt::format("{}", burst), "latency", fmt::format("{}ms", kQueueMs)});
  };
  for (int i = 0; i < num_hosts_; ++i) {
    NDP_RETURN_IF_ERROR(limit(Host(i), Link(i)));
    NDP_RETURN_IF_ERROR(limit(Switch(), Port(i)));
  }
  return {};
}

std::vector<std::string> LimitedNetwork::CommandOn(int host) const {
  return {"ip", "netns", "exec", Host(host)};
}

Status LimitedNetwork::Enter(int host) const {
  const std::string file = "/run/netns/" + Host(host);
  const FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return FailErrno("cannot open " + file, errno);
  if (::setns(fd.get(), CLONE_NEWNET) != 0) return FailErrno("cannot enter " + file, errno);
  return {};
}

}  // namespace ndpipe::bench
