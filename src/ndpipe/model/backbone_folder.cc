#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <utility>

#include "ndpipe/base/bytes.h"
#include "ndpipe/base/file.h"
#include "ndpipe/base/log.h"
#include "ndpipe/model/backbone.h"
#include "ndpipe/model/backbone_graph.h"
#include "ndpipe/model/classifier.h"
#include "ndpipe/model/onnx.h"

namespace ndpipe::model {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxManifestBytes = size_t{32} << 20;
constexpr std::string_view kTemporaryPrefix = ".adding-";
constexpr const char* kOnnxName = "model.onnx";
constexpr const char* kManifestName = "manifest.json";

// A folder in the making: it becomes a backbone's by a rename, or is removed.
class TemporaryFolder {
 public:
  static Result<TemporaryFolder> Make(const fs::path& parent) {
    static std::atomic<uint64_t> counter{0};
    fs::path path = parent / (std::string(kTemporaryPrefix) + std::to_string(::getpid()) + "-" +
                              std::to_string(counter++));
    std::error_code ignored;
    fs::remove_all(path, ignored);  // of a dead process with our number
    if (::mkdir(path.c_str(), 0755) != 0) {
      return FailErrno("cannot create folder " + path.string(), errno);
    }
    return TemporaryFolder(std::move(path));
  }
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }

  const fs::path& path() const { return path_; }

  // A target that is there already is as good: its name is the hash of its content.
  Status MoveTo(const fs::path& target) {
    NDP_RETURN_IF_ERROR(SyncFolder(path_));
    if (::rename(path_.c_str(), target.c_str()) == 0) {
      path_.clear();
    } else if (errno != ENOTEMPTY && errno != EEXIST) {
      return FailErrno("cannot create folder " + target.string(), errno);
    }
    return SyncFolder(target.parent_path());
  }

 private:
  explicit TemporaryFolder(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

// What a process that was killed while it added has left.
void RemoveLeftovers(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kTemporaryPrefix)) continue;
    const long pid = std::strtol(name.c_str() + kTemporaryPrefix.size(), nullptr, 10);
    if (pid > 0 && ::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) {
      std::error_code ignored;
      fs::remove_all(entry.path(), ignored);
    }
  }
}

// Writes pieces to a new file while it hashes them.
class HashedFile {
 public:
  static Result<HashedFile> Create(const fs::path& path) {
    FileDescriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!fd.valid()) return FailErrno("cannot create " + path.string(), errno);
    return HashedFile(std::move(fd), path);
  }

  Status Write(std::span<const uint8_t> bytes) {
    hash_->Update(bytes);
    while (!bytes.empty()) {
      const ssize_t count = ::write(fd_.get(), bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return FailErrno("cannot write " + path_.string(), errno);
      bytes = bytes.subspan(static_cast<size_t>(count));
    }
    return {};
  }

  Result<Hash256> Finish() {
    if (::fsync(fd_.get()) != 0) return FailErrno("cannot sync " + path_.string(), errno);
    return hash_->Finish();
  }

 private:
  HashedFile(FileDescriptor fd, fs::path path) : fd_(std::move(fd)), path_(std::move(path)) {}
  FileDescriptor fd_;
  fs::path path_;
  std::unique_ptr<Sha256> hash_ = std::make_unique<Sha256>();
};

Result<Manifest> ReadManifest(const fs::path& path) {
  NDP_ASSIGN(const auto bytes, ReadFile(path, kMaxManifestBytes));
  auto manifest = ParseManifest(AsText(bytes));
  if (!manifest) return std::unexpected(std::move(manifest).error().Within(path.string()));
  return manifest;
}

// A backbone from its folder, with all checks but that of the hash.
Result<Backbone> LoadBackbone(const fs::path& folder, const Hash256& hash) {
  Backbone backbone;
  backbone.hash = hash;
  backbone.onnx_file = folder / kOnnxName;
  NDP_ASSIGN(backbone.manifest, ReadManifest(folder / kManifestName));
  NDP_ASSIGN(const Graph graph, ReadKeptGraph(backbone.onnx_file));
  NDP_RETURN_IF_ERROR(CheckKeptManifest(graph, backbone.manifest));
  if (graph.inputs.size() != 1) {
    return Fail(ErrorCode::kDataLoss, backbone.onnx_file.string() + " has not one input");
  }
  NDP_ASSIGN(const Classifier classifier, FindClassifier(graph));
  backbone.input = graph.inputs[0].name;
  backbone.output = classifier.logits;
  backbone.cut = classifier.features;
  backbone.feature_size = classifier.feature_size;
  std::error_code error;
  backbone.model_bytes = static_cast<int64_t>(fs::file_size(backbone.onnx_file, error));
  if (error) return FailErrno("cannot read " + backbone.onnx_file.string(), error.value());
  return backbone;
}

// Makes way for the backbone when what lies in its place is damaged: adding it again mends it.
void MoveDamagedAway(const fs::path& target, const Hash256& hash) {
  std::error_code error;
  if (!fs::is_directory(target, error) || LoadBackbone(target, hash)) return;
  const auto aside = TemporaryFolder::Make(target.parent_path());
  if (aside) ::rename(target.c_str(), (aside->path() / "damaged").c_str());
}

fs::file_time_type AddedAt(const fs::path& folder) {
  std::error_code error;
  const auto time = fs::last_write_time(folder / kManifestName, error);
  return error ? fs::file_time_type::min() : time;
}

}  // namespace

Result<BackboneFolder> BackboneFolder::Open(const fs::path& folder) {
  NDP_RETURN_IF_ERROR(MakeFolders(folder));
  std::error_code error;
  const fs::path absolute = fs::absolute(folder, error);
  if (error) return FailErrno("cannot open folder " + folder.string(), error.value());
  RemoveLeftovers(absolute);
  return BackboneFolder(absolute);
}

Result<Backbone> BackboneFolder::Add(const fs::path& onnx_file, const fs::path& manifest_file) {
  const fs::path manifest_path =
      manifest_file.empty() ? onnx_file.parent_path() / kManifestName : manifest_file;
  NDP_ASSIGN(const Manifest manifest, ReadManifest(manifest_path));
  NDP_ASSIGN(const Graph graph, ReadForeignGraph(onnx_file, manifest));
  NDP_ASSIGN(const WireMessage message, WriteOnnx(graph));
  NDP_ASSIGN(TemporaryFolder temporary, TemporaryFolder::Make(folder_));
  NDP_ASSIGN(HashedFile file, HashedFile::Create(temporary.path() / kOnnxName));
  NDP_RETURN_IF_ERROR(message.WriteTo([&](auto bytes) { return file.Write(bytes); }));
  NDP_ASSIGN(const Hash256 hash, file.Finish());
  NDP_RETURN_IF_ERROR(WriteFileDurably(temporary.path() / kManifestName, FormatManifest(manifest)));
  NDP_RETURN_IF_ERROR(LoadBackbone(temporary.path(), hash));
  MoveDamagedAway(folder_ / hash.Hex(), hash);
  NDP_RETURN_IF_ERROR(temporary.MoveTo(folder_ / hash.Hex()));
  return Get(hash);
}

Result<Backbone> BackboneFolder::AddKept(const Hash256& hash, const fs::path& onnx_file,
                                         std::string_view manifest_json) {
  NDP_ASSIGN(const Manifest manifest, ParseManifest(manifest_json));
  NDP_ASSIGN(const MappedFile source, MappedFile::Open(onnx_file, kMaxOnnxBytes));
  NDP_ASSIGN(TemporaryFolder temporary, TemporaryFolder::Make(folder_));
  NDP_ASSIGN(HashedFile file, HashedFile::Create(temporary.path() / kOnnxName));
  NDP_RETURN_IF_ERROR(file.Write(source.bytes()));
  NDP_ASSIGN(const Hash256 found, file.Finish());
  if (found != hash) {
    return Fail(ErrorCode::kDataLoss, onnx_file.string() + " is damaged: its hash is " +
                                          found.Hex() + ", where " + hash.Hex() + " is expected");
  }
  NDP_RETURN_IF_ERROR(WriteFileDurably(temporary.path() / kManifestName, FormatManifest(manifest)));
  NDP_RETURN_IF_ERROR(LoadBackbone(temporary.path(), hash));
  MoveDamagedAway(folder_ / hash.Hex(), hash);
  NDP_RETURN_IF_ERROR(temporary.MoveTo(folder_ / hash.Hex()));
  return Get(hash);
}

Result<Backbone> BackboneFolder::Get(const Hash256& hash) const {
  const fs::path folder = folder_ / hash.Hex();
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return Fail(ErrorCode::kNotFound,
                "no backbone " + hash.Hex() + " in " + folder_.string() + ": add it first");
  }
  return LoadBackbone(folder, hash);
}

Result<Backbone> BackboneFolder::FindByName(std::string_view name) const {
  NDP_ASSIGN(auto backbones, List());
  std::erase_if(backbones, [&](const Backbone& b) { return b.manifest.name != name; });
  if (backbones.empty()) {
    return Fail(ErrorCode::kNotFound,
                "no backbone is named \"" + std::string(name) + "\" in " + folder_.string());
  }
  return *std::ranges::max_element(backbones, {}, [](const Backbone& backbone) {
    return AddedAt(backbone.onnx_file.parent_path());
  });
}

Result<std::vector<Backbone>> BackboneFolder::List() const {
  std::vector<Hash256> hashes;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    const auto hash = Hash256::FromHex(name);
    if (hash && hash->Hex() == name) hashes.push_back(*hash);
  }
  if (error) return FailErrno("cannot list folder " + folder_.string(), error.value());
  std::ranges::sort(hashes);
  std::vector<Backbone> backbones;
  for (const auto& hash : hashes) {
    auto backbone = Get(hash);
    if (backbone) {
      backbones.push_back(*std::move(backbone));
    } else {
      // One damaged backbone must not keep a server from starting with the others; who asks for
      // this one gets the error.
      spdlog::warn("the backbone {} is left out: {}; add it again", hash.Hex(),
                   backbone.error().message);
    }
  }
  return backbones;
}

}  // namespace ndpipe::model
