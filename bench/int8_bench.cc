// A quantised backbone against its original: the engine's rate in fp32, bf16 and int8, in turns in
// one run, and the share of photos that keep fp32's class. Prints a JSON line for each.
//
// usage: int8_bench [MODEL [INT8_MODEL [PHOTO_FOLDER]]]     models as ndpipe infer takes them
// INT8_MODEL is int8/ in MODEL's folder when not given. Without photos no agreement is measured.
#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "measure.h"
#include "ndpipe/cli/infer_input.h"
#include "ndpipe/cli/local_model.h"
#include "ndpipe/cli/precision_trial.h"

namespace ndpipe::bench {
namespace {

constexpr double kSeconds = 1;

struct Contestant {
  std::string name;
  cli::LocalModel model;
  std::vector<double> wall;  // photos a second, by round
  std::vector<double> cpu;
  std::optional<double> agreement;  // nothing without photos
};

// False where the device lacks the precision, which is said.
Result<bool> Enter(const BenchModel& model, std::string name, model::Precision precision,
                   std::vector<Contestant>& contestants) {
  auto body = OpenBody(model, precision);
  if (!body && body.error().code == ErrorCode::kUnavailable) {
    fmt::print(R"({{"bench":"int8","precision":"{}","skipped":"{}"}})"
               "\n",
               name, body.error().message);
    return false;
  }
  if (!body) return std::unexpected(std::move(body).error());
  Contestant made{.name = std::move(name)};
  made.model.backbone = model.backbone();
  made.model.precision = precision;
  NDP_ASSIGN(made.model.own_tail, model::OwnTail(model.backbone()));
  NDP_ASSIGN(made.model.tail, engine::CreateTailEngine(made.model.own_tail));
  made.model.body = *std::move(body);
  contestants.push_back(std::move(made));
  return true;
}

// The first contestant is fp32, which the others are held against.
Status CompareAnswers(const std::string& photo_folder, std::vector<Contestant>& contestants) {
  if (photo_folder.empty()) return {};
  NDP_ASSIGN(const auto input, cli::OpenInferInput(photo_folder, false));
  std::vector<int64_t> numbers(static_cast<size_t>(input.source->num_photos()));
  std::iota(numbers.begin(), numbers.end(), 1);
  std::map<int64_t, int32_t> reference;
  for (auto& contestant : contestants) {
    NDP_ASSIGN(auto classes, cli::ClassesOf(contestant.model, *input.source, numbers, {}));
    if (reference.empty()) reference = classes;
    contestant.agreement = cli::Agreement(classes, reference);
  }
  return {};
}

void Print(const std::string& model, const Contestant& contestant, const Contestant& fp32) {
  fmt::print(R"({{"bench":"int8","model":"{}","precision":"{}","engine":"{}",)"
             R"("images_per_second":{:.1f},"ratio_to_fp32":{:.3f},)"
             R"("ratio_to_fp32_by_cpu_time":{:.3f},"agreement":{}}})"
             "\n",
             model, contestant.name, contestant.model.body->description(), Median(contestant.wall),
             MedianRatio(contestant.wall, fp32.wall), MedianRatio(contestant.cpu, fp32.cpu),
             contestant.agreement ? fmt::format("{:.4f}", *contestant.agreement) : "null");
}

Status Run(const std::string& model, const std::string& int8_model, const std::string& photos) {
  NDP_ASSIGN(const auto original, BenchModel::Open(model));
  const auto quantised = BenchModel::Open(int8_model);
  if (!quantised && quantised.error().code == ErrorCode::kNotFound) {
    fmt::print(R"({{"bench":"int8","model":"{}","skipped":"no quantised variant: make it with )"
               R"(tools/setup/quantize.sh"}})"
               "\n",
               original.backbone().manifest.name);
    return {};
  }
  if (!quantised) return std::unexpected(quantised.error());
  std::vector<Contestant> contestants;
  using enum model::Precision;
  NDP_RETURN_IF_ERROR(Enter(original, "fp32", kFp32, contestants));
  NDP_RETURN_IF_ERROR(Enter(original, "bf16", kBf16, contestants));
  NDP_RETURN_IF_ERROR(Enter(*quantised, "int8", kFp32, contestants));
  NDP_RETURN_IF_ERROR(Enter(*quantised, "int8, rest bf16", kBf16, contestants));
  NDP_RETURN_IF_ERROR(CompareAnswers(photos, contestants));
  for (int round = 0; round < kRounds; ++round) {
    for (auto& contestant : contestants) {
      const Rate rate = EngineRate(*contestant.model.body, kSeconds);
      contestant.wall.push_back(rate.wall);
      contestant.cpu.push_back(rate.cpu);
    }
  }
  for (const auto& contestant : contestants) {
    Print(original.backbone().manifest.name, contestant, contestants[0]);
  }
  return {};
}

// int8/ beside the model's file, wherever the model's name leads.
std::string VariantOf(const std::string& model) {
  const auto onnx_file = model::ResolveModel(model);
  return onnx_file ? (onnx_file->parent_path() / "int8").string() : model + "/int8";
}

}  // namespace
}  // namespace ndpipe::bench

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  return ndpipe::bench::Main("int8_bench", [&] {
    const std::string model = arguments.empty() ? "efficientnet-lite0" : arguments[0];
    const std::string int8_model =
        arguments.size() > 1 ? arguments[1] : ndpipe::bench::VariantOf(model);
    return ndpipe::bench::Run(model, int8_model, arguments.size() > 2 ? arguments[2] : "");
  });
}
