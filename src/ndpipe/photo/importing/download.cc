#include "ndpipe/photo/importing/download.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "ndpipe/base/file.h"

namespace ndpipe::photo {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

constexpr long kConnectSeconds = 30;
constexpr long kMaxRedirects = 5;
constexpr auto kProgressEvery = std::chrono::milliseconds(100);
constexpr long kHttpOk = 200;
constexpr long kHttpRangeNotSatisfiable = 416;

constexpr const char* kCifar100Url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz";
constexpr const char* kCifar100Md5 = "03b5dce01913d631647c71ecec9e9cb8";  // published beside it

struct FreeDigest {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

Result<std::string> Md5OfFile(const fs::path& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return FailErrno("cannot open " + path.string(), errno);
  std::unique_ptr<EVP_MD_CTX, FreeDigest> context(EVP_MD_CTX_new());
  if (EVP_DigestInit_ex(context.get(), EVP_md5(), nullptr) != 1) {
    return Fail(ErrorCode::kUnimplemented, "this system's OpenSSL has no MD5");
  }
  std::vector<uint8_t> buffer(1 << 20);
  while (true) {
    const ssize_t count = ::read(fd.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FailErrno("cannot read " + path.string(), errno);
    if (count == 0) break;
    EVP_DigestUpdate(context.get(), buffer.data(), static_cast<size_t>(count));
  }
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_DigestFinal_ex(context.get(), digest, &size);
  std::string hex;
  for (unsigned i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

// One attempt's state, shared with libcurl's callbacks.
struct Transfer {
  CURL* curl = nullptr;
  int fd = -1;
  int64_t at = 0;     // bytes in the part file
  int64_t limit = 0;  // bytes that it may have
  bool is_first = true;
  Status written{};
  const DownloadProgress* on_progress = nullptr;
  const std::stop_token* stop = nullptr;
  steady_clock::time_point last_shown{};
};

size_t OnData(const char* data, size_t, size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (std::exchange(transfer.is_first, false)) {
    long code = 0;
    curl_easy_getinfo(transfer.curl, CURLINFO_RESPONSE_CODE, &code);
    // A server that knows no ranges sends everything from the start.
    if (code == kHttpOk && transfer.at > 0) {
      if (::ftruncate(transfer.fd, 0) != 0) {
        transfer.written = FailErrno("cannot start the download again", errno);
        return 0;
      }
      transfer.at = 0;
    }
  }
  if (transfer.at + static_cast<int64_t>(size) > transfer.limit) {
    transfer.written = Fail(ErrorCode::kResourceExhausted,
                            fmt::format("the server sends more than {} bytes", transfer.limit));
    return 0;
  }
  size_t done = 0;
  while (done < size) {
    const ssize_t count = ::pwrite(transfer.fd, data + done, size - done, transfer.at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      transfer.written = FailErrno("cannot write the download", errno);
      return 0;
    }
    done += static_cast<size_t>(count);
    transfer.at += count;
  }
  return size;
}

int OnProgress(void* user, curl_off_t total, curl_off_t done, curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (transfer.stop->stop_requested()) return 1;
  const auto now = steady_clock::now();
  if (*transfer.on_progress && now - transfer.last_shown >= kProgressEvery) {
    transfer.last_shown = now;
    (*transfer.on_progress)(transfer.at, total == 0 ? 0 : transfer.at - done + total);
  }
  return 0;
}

struct FreeCurl {
  void operator()(CURL* curl) const { curl_easy_cleanup(curl); }
};

std::unique_ptr<CURL, FreeCurl> MakeCurl(const DownloadRequest& request, Transfer& transfer) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  std::unique_ptr<CURL, FreeCurl> curl(curl_easy_init());
  NDP_CHECK(curl != nullptr);
  transfer.curl = curl.get();
  curl_easy_setopt(curl.get(), CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_MAXREDIRS, kMaxRedirects);
  curl_easy_setopt(curl.get(), CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_TIME, static_cast<long>(request.stall_seconds));
  curl_easy_setopt(curl.get(), CURLOPT_RESUME_FROM_LARGE, static_cast<curl_off_t>(transfer.at));
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, &OnData);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, &OnProgress);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFODATA, &transfer);
  return curl;
}

Error HttpError(const DownloadRequest& request, CURLcode code, long http) {
  if (code == CURLE_HTTP_RETURNED_ERROR && http < 500 && http != kHttpRangeNotSatisfiable &&
      http != 408 && http != 429) {
    const ErrorCode error =
        http == 401 || http == 403 ? ErrorCode::kPermissionDenied : ErrorCode::kNotFound;
    return {error, fmt::format("{} cannot be fetched: the server answers {}; name another address "
                               "with NDPIPE_CIFAR100_URL",
                               request.url, http)};
  }
  return {
      ErrorCode::kUnavailable,
      fmt::format("fetching {} broke off ({}): run it again to go on where it stopped", request.url,
                  http >= 400 ? fmt::format("HTTP {}", http) : curl_easy_strerror(code))};
}

// Fetches what the part file lacks. kUnavailable is worth another attempt.
Status Attempt(const DownloadRequest& request, const fs::path& part,
               const DownloadProgress& on_progress, const std::stop_token& stop) {
  FileDescriptor fd(::open(part.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid()) return FailErrno("cannot create " + part.string(), errno);
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return FailErrno("cannot read " + part.string(), errno);
  Transfer transfer{.fd = fd.get(),
                    .at = info.st_size,
                    .limit = request.max_bytes,
                    .on_progress = &on_progress,
                    .stop = &stop};
  const auto curl = MakeCurl(request, transfer);
  const CURLcode code = curl_easy_perform(curl.get());
  long http = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &http);
  if (!transfer.written) {
    return std::unexpected(std::move(transfer.written).error().Within(part.string()));
  }
  if (code == CURLE_ABORTED_BY_CALLBACK) {
    return Fail(ErrorCode::kCancelled, "the download was stopped: run it again to go on");
  }
  const bool is_beyond = http == kHttpRangeNotSatisfiable || code == CURLE_RANGE_ERROR;
  if (is_beyond) {
    // Either the part is the whole file (its checksum decides) or the server has no ranges.
    const auto md5 = Md5OfFile(part);
    if (md5 && *md5 == request.md5) return {};
    if (::ftruncate(fd.get(), 0) != 0) return FailErrno("cannot empty " + part.string(), errno);
    return std::unexpected(HttpError(request, code, http));
  }
  if (code != CURLE_OK) return std::unexpected(HttpError(request, code, http));
  if (::fsync(fd.get()) != 0) return FailErrno("cannot sync " + part.string(), errno);
  return {};
}

Status FetchPart(const DownloadRequest& request, const fs::path& part,
                 const DownloadProgress& on_progress, const std::stop_token& stop) {
  auto wait = std::chrono::milliseconds(request.retry_wait_ms);
  for (int attempt = 1;; ++attempt) {
    Status fetched = Attempt(request, part, on_progress, stop);
    const bool try_again = !fetched && fetched.error().code == ErrorCode::kUnavailable &&
                           attempt < request.num_attempts;
    if (!try_again) return fetched;
    const auto until = steady_clock::now() + wait;
    while (steady_clock::now() < until && !stop.stop_requested()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    wait *= 2;
  }
}

}  // namespace

Status Download(const DownloadRequest& request, const DownloadProgress& on_progress,
                const std::stop_token& stop) {
  NDP_RETURN_IF_ERROR(MakeFolders(request.file.parent_path()));
  fs::path part = request.file;
  part += ".part";
  fs::path lock_file = request.file;
  lock_file += ".lock";
  NDP_ASSIGN(const auto lock,
             FileLock::Acquire(lock_file, "another process is fetching " + request.file.string()));
  std::error_code error;
  if (fs::exists(request.file, error)) {
    NDP_ASSIGN(const auto md5, Md5OfFile(request.file));
    if (md5 == request.md5) return {};
  }
  NDP_RETURN_IF_ERROR(FetchPart(request, part, on_progress, stop));
  NDP_ASSIGN(const auto md5, Md5OfFile(part));
  if (md5 != request.md5) {
    fs::remove(part, error);
    return Fail(ErrorCode::kDataLoss,
                fmt::format("what {} sends has the MD5 {}, not {}, and was removed: try again, or "
                            "name another address",
                            request.url, md5, request.md5));
  }
  fs::rename(part, request.file, error);
  if (error) return FailErrno("cannot rename " + part.string(), error.value());
  return SyncFolder(request.file.parent_path());
}

Result<fs::path> DownloadCifar100(const fs::path& folder, const DownloadProgress& on_progress,
                                  const std::stop_token& stop) {
  const char* url = std::getenv("NDPIPE_CIFAR100_URL");
  const char* md5 = std::getenv("NDPIPE_CIFAR100_MD5");
  const DownloadRequest request{.url = url != nullptr ? url : kCifar100Url,
                                .file = folder / "cifar-100-binary.tar.gz",
                                .md5 = md5 != nullptr ? md5 : kCifar100Md5};
  NDP_RETURN_IF_ERROR(Download(request, on_progress, stop));
  return request.file;
}

}  // namespace ndpipe::photo
