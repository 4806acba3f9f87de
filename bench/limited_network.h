// A switch and hosts on this machine, in network namespaces, whose links have one speed.
#pragma once

#include <string>
#include <vector>

#include "ndpipe/base/result.h"

namespace ndpipe::bench {

// Each host has a namespace of its own and a link to the switch; every link is limited in both
// directions by tc's token bucket. Needs root, iproute2, and a kernel with veth, bridge and tbf.
// Everything goes away with the object. One thread.
class LimitedNetwork {
 public:
  // kPermissionDenied, kUnavailable: not possible here, and why. Starts without limits.
  static Result<LimitedNetwork> Create(int num_hosts);
  LimitedNetwork(LimitedNetwork&& other) noexcept;
  LimitedNetwork& operator=(LimitedNetwork&&) = delete;
  ~LimitedNetwork();

  Status SetSpeed(double gbits_per_second);  // of every link, in each direction
  static std::string AddressOf(int host);    // from 0
  // What comes before a program's path and arguments so that it runs on a host.
  std::vector<std::string> CommandOn(int host) const;
  // This thread, and those that it starts later, are on the host from now on.
  Status Enter(int host) const;

 private:
  LimitedNetwork(std::string prefix, int num_hosts)
      : prefix_(std::move(prefix)), num_hosts_(num_hosts) {}
  std::string Host(int host) const;
  std::string Switch() const { return prefix_ + "-switch"; }
  Status Build();

  std::string prefix_;  // empty: moved from
  int num_hosts_ = 0;
};

}  // namespace ndpipe::bench
