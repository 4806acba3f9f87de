// Fetching files over HTTP: resumable, checked, bounded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "ndpipe/base/result.h"

namespace ndpipe::photo {

struct DownloadRequest {
  std::string url;             // http or https
  std::filesystem::path file;  // grows as FILE.part beside it
  std::string md5;             // 32 hex digits: what the file must have
  int64_t max_bytes = int64_t{1} << 30;
  int num_attempts = 5;      // each goes on where the last one broke off
  int retry_wait_ms = 1000;  // doubled each time
  int stall_seconds = 60;    // a connection that brings nothing for so long is given up
};

using DownloadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

// Nothing to do when the file is there with the right checksum. Durable on return. Blocks.
// kNotFound and kPermissionDenied: the server says so. kUnavailable: no connection, or it broke too
// often; the part stays and the next call goes on from there. kDataLoss: wrong checksum; the part
// is removed. kResourceExhausted: larger than max_bytes, or the disk is full. kCancelled after a
// stop. kAlreadyExists: another process is fetching the same file.
Status Download(const DownloadRequest& request, const DownloadProgress& on_progress,
                const std::stop_token& stop);

// The official CIFAR-100 binary archive, into `folder`; its path. NDPIPE_CIFAR100_URL and
// NDPIPE_CIFAR100_MD5 override the address and the published checksum.
Result<std::filesystem::path> DownloadCifar100(const std::filesystem::path& folder,
                                               const DownloadProgress& on_progress,
                                               const std::stop_token& stop);

}  // namespace ndpipe::photo
