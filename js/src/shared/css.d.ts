// A stylesheet is bundled as the text it holds; a view puts it into a <style> inside its own root.
declare module "*.css" {
  const text: string;
  export default text;
}
