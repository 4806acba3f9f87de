#include "ndpipe/model/external_data.h"

#include <fcntl.h>

#include <cerrno>
#include <map>
#include <string>
#include <utility>

#include "ndpipe/base/file.h"
#include "ndpipe/model/utf8.h"

namespace ndpipe::model {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxLocationBytes = 4096;
constexpr size_t kMaxFiles = 100'000;
constexpr size_t kMaxExternalBytes = size_t{8} << 30;

std::unexpected<Error> Refused(const std::string& location, std::string reason) {
  return Fail(ErrorCode::kInvalidArgument,
              "external data '" + location + "' is refused: " + std::move(reason));
}

// Opens `location` step by step, never through a link.
Result<FileDescriptor> OpenInside(const fs::path& folder, const std::string& location) {
  const fs::path relative(location);
  if (location.empty() || location.size() > kMaxLocationBytes || !IsPrintableUtf8(location) ||
      relative.is_absolute()) {
    return Refused(location, "it must be a relative path inside the model's folder");
  }
  FileDescriptor at(
      ::open(folder.empty() ? "." : folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at.valid()) return FailErrno("cannot open folder " + folder.string(), errno);
  for (auto step = relative.begin(); step != relative.end(); ++step) {
    if (step->empty() || *step == "..") {
      return Refused(location, "it must be a relative path inside the model's folder");
    }
    const bool last = std::next(step) == relative.end();
    // Without O_NONBLOCK a FIFO would block the program.
    const int flags =
        O_NOFOLLOW | O_CLOEXEC | (last ? O_RDONLY | O_NONBLOCK : O_PATH | O_DIRECTORY);
    FileDescriptor next(::openat(at.get(), step->c_str(), flags));
    if (!next.valid() && (errno == ELOOP || errno == ENOTDIR)) {
      return Refused(location, "'" + step->string() + "' is a link, or no folder");
    }
    if (!next.valid()) return FailErrno("cannot open external data '" + location + "'", errno);
    at = std::move(next);
  }
  return at;
}

class Resolver {
 public:
  explicit Resolver(fs::path folder) : folder_(std::move(folder)) {}

  Result<ExternalBytes> Resolve(const ExternalReference& reference) {
    auto found = files_.find(reference.location);
    if (found == files_.end()) {
      NDP_ASSIGN(auto file, Map(reference.location));
      found = files_.emplace(reference.location, std::move(file)).first;
    }
    const auto bytes = found->second->bytes();
    if (reference.offset > bytes.size() || reference.num_bytes > bytes.size() - reference.offset) {
      return Refused(reference.location, std::to_string(reference.num_bytes) + " bytes at " +
                                             std::to_string(reference.offset) +
                                             " lie beyond its end at " +
                                             std::to_string(bytes.size()));
    }
    return ExternalBytes{bytes.subspan(reference.offset, reference.num_bytes), found->second};
  }

 private:
  Result<std::shared_ptr<const MappedFile>> Map(const std::string& location) {
    if (files_.size() >= kMaxFiles) {
      return Fail(ErrorCode::kResourceExhausted, "external data lies in more than 100,000 files");
    }
    NDP_ASSIGN(const FileDescriptor fd, OpenInside(folder_, location));
    // By this name the very file that was checked is mapped, whatever its path means by now.
    auto mapped = MappedFile::Open("/proc/self/fd/" + std::to_string(fd.get()), kMaxExternalBytes);
    if (!mapped) {
      return Fail(mapped.error().code, "external data '" + location +
                                           "' is not a readable regular file of at most 8 GiB");
    }
    return std::make_shared<const MappedFile>(*std::move(mapped));
  }

  const fs::path folder_;
  std::map<std::string, std::shared_ptr<const MappedFile>> files_;
};

}  // namespace

ExternalResolver MakeExternalResolver(const fs::path& folder) {
  return [resolver = std::make_shared<Resolver>(folder)](const ExternalReference& reference) {
    return resolver->Resolve(reference);
  };
}

}  // namespace ndpipe::model
